"""Draw where a NeuroFusionNet looks for each ROI, a column per ROI.

With --subject: where the responses of the subject's ROIs come from, by the encoding head. Without: the spatial weights
that pool the ROI features of the image tower.

Example:
    python tools/visualization/roi_maps.py cat.jpg street.jpg --out rois.png --subject data/nsd_store/subj01.h5 \
        --model configs/nfn/pretrain_nsd.py work_dirs/pretrain_nsd/epoch_100.pth
"""

import sys

from mmnfn.engine.run_config import report_error
from mmnfn.nsd import ROIStore
from mmnfn.visualization.image_maps import chosen_images, draw_grid, image_parser, load_model, roi_maps


def main(argv=None):
    """Draw the maps; returns the exit code."""
    parser = image_parser(__doc__)
    parser.add_argument('--model', nargs=2, required=True, metavar=('CONFIG', 'CHECKPOINT'), help='the model')
    parser.add_argument('--subject', metavar='STORE.h5', help='ROI store of a subject')
    args = parser.parse_args(argv)
    try:
        model = load_model(*args.model, args.device)
        images = chosen_images(args, model)
        maps, names = roi_maps(model, images, args.subject and ROIStore(args.subject))
        draw_grid(args.out, images, names, maps.transpose(1, 0, 2, 3))
    except (OSError, ValueError) as error:
        return report_error('roi_maps.py', error)
    print(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
