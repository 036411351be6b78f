"""Draw where a NeuroFusionNet looks for each ROI: the spatial weights of its ROI features, a column per ROI.

Example:
    python tools/visualization/roi_maps.py cat.jpg street.jpg --out rois.png \
        --model configs/nfn/pretrain_nsd.py work_dirs/pretrain_nsd/epoch_100.pth
"""

import sys

from mmnfn.engine.run_config import report_error
from mmnfn.visualization.image_maps import chosen_images, draw_grid, image_parser, load_model, roi_maps


def main(argv=None):
    """Draw the maps; returns the exit code."""
    parser = image_parser(__doc__)
    parser.add_argument('--model', nargs=2, required=True, metavar=('CONFIG', 'CHECKPOINT'), help='the model')
    args = parser.parse_args(argv)
    try:
        model = load_model(*args.model, args.device)
        images = chosen_images(args, model)
        maps, names = roi_maps(model, images)
        draw_grid(args.out, images, names, maps.transpose(1, 0, 2, 3))
    except (OSError, ValueError) as error:
        return report_error('roi_maps.py', error)
    print(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
