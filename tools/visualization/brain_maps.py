"""Encoding maps on slices of a brain (nilearn): a row for each map, all on one scale.

Example:
    python tools/test.py configs/encoding/swin-s_nsd.py work_dirs/pretrain_nsd/backbone_latest.pth \
        --cfg-options test_evaluator.map_dir=maps test_evaluator.data_root=data/nsd_store
    python tools/visualization/brain_maps.py --map NeuroFusionNet maps/subj08_pcc.nii.gz --out brain.png \
        --background /path/to/nsd/nsddata/ppdata/subj08/func1pt8mm/T1_to_func1pt8mm.nii.gz
"""

import sys

from mmnfn.engine.run_config import report_error
from mmnfn.visualization.brain_maps import draw_brain_maps
from mmnfn.visualization.cli import new_parser


def parse_args(argv=None):
    """Command line arguments."""
    parser = new_parser(__doc__)
    parser.add_argument(
        '--map', nargs=2, action='append', required=True, metavar=('NAME', 'NIFTI'), help='give it once for each map'
    )
    parser.add_argument('--background', metavar='NIFTI', help='anatomy in the same space')
    parser.add_argument('--slices', type=int, default=7, help='number of slices; default 7')
    parser.add_argument('--vmax', type=float, help='end of the colour scale; default the 99th percentile of all maps')
    parser.add_argument('--threshold', type=float, help='do not draw smaller absolute values')
    return parser.parse_args(argv)


def main(argv=None):
    """Draw; returns the exit code."""
    args = parse_args(argv)
    try:
        names = [name for name, _ in args.map]
        if len(set(names)) < len(names):
            raise ValueError(f'--map: {names} has a name twice.')
        draw_brain_maps(args.out, dict(args.map), args.background, args.slices, args.vmax, args.threshold)
    except (OSError, ValueError, ImportError) as error:
        return report_error('brain_maps.py', error)
    print(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
