"""Where a NeuroFusionNet looks for each ROI: the spatial weights of its K ROI features, a column for each ROI.

Example:
    python tools/visualization/roi_maps.py cat.jpg street.jpg --out rois.png \
        --model configs/nfn/pretrain_nsd.py work_dirs/pretrain_nsd/epoch_100.pth
"""

import sys

from mmnfn.engine.run_config import report_error
from mmnfn.visualization.cli import add_image_arguments, chosen_images, loaded_model, new_parser
from mmnfn.visualization.image_grid import draw_grid
from mmnfn.visualization.roi_maps import roi_maps


def parse_args(argv=None):
    """Command line arguments."""
    parser = new_parser(__doc__)
    add_image_arguments(parser)
    parser.add_argument('--model', nargs=2, required=True, metavar=('CONFIG', 'CHECKPOINT'), help='the model')
    return parser.parse_args(argv)


def main(argv=None):
    """Draw; returns the exit code."""
    args = parse_args(argv)
    try:
        model = loaded_model(*args.model, args.device)
        images = chosen_images(args, model)
        maps, names = roi_maps(model, images)
        draw_grid(args.out, images, names, maps.transpose(1, 0, 2, 3))
    except (OSError, ValueError) as error:
        return report_error('roi_maps.py', error)
    print(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
