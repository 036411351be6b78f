"""Draw Grad-CAM panels of image embeddings, Figure 3 of the paper: a row per image, a column per checkpoint.

Example:
    python tools/visualization/grad_cam.py cat.jpg street.jpg --out figure3.png \
        --model NeuroFusionNet configs/nfn/pretrain_nsd.py work_dirs/pretrain_nsd/epoch_100.pth \
        --model CLIP configs/nfn/pretrain_nsd_clip.py work_dirs/pretrain_nsd_clip/epoch_100.pth \
        --model Brainformer configs/nfn/pretrain_nsd_brainformer.py work_dirs/pretrain_nsd_brainformer/epoch_100.pth
    python tools/visualization/grad_cam.py --store data/nsd_store/images_224.h5 --ids 46002 61882 --out figure3.png \
        --model NeuroFusionNet configs/nfn/pretrain_nsd.py work_dirs/pretrain_nsd/epoch_100.pth

There are no classes to explain: the maps show what sets the embedding of an image apart from those of the others.
"""

import sys

from mmnfn.engine.run_config import report_error
from mmnfn.visualization.grad_cam import METHODS, grad_cam
from mmnfn.visualization.image_maps import chosen_images, draw_grid, image_parser, load_model


def main(argv=None):
    """Draw the panels; returns the exit code."""
    parser = image_parser(__doc__)
    parser.add_argument(
        '--model',
        nargs=3,
        action='append',
        required=True,
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='heading, config and checkpoint; repeat for more models',
    )
    parser.add_argument('--method', choices=METHODS, default='gradcam', help='(default: %(default)s)')
    parser.add_argument('--stage', type=int, default=-1, help='stage of the backbone (default: the last)')
    parser.add_argument('--layer', help='name of another layer, for backbones without stages')
    args = parser.parse_args(argv)
    try:
        maps = []
        for _, config, checkpoint in args.model:
            model = load_model(config, checkpoint, args.device)
            images = chosen_images(args, model)
            maps.append(grad_cam(model, images, args.method, args.stage, args.layer))
        draw_grid(args.out, images, [name for name, _, _ in args.model], maps)
    except (OSError, ValueError, ImportError) as error:
        return report_error('grad_cam.py', error)
    print(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
