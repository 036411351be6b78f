"""Draw encoding maps on slices of a brain (nilearn): a row per map, all on one scale.

Example:
    python tools/test.py configs/encoding/swin-s_nsd.py work_dirs/pretrain_nsd/backbone_latest.pth \
        --cfg-options test_evaluator.map_dir=maps test_evaluator.data_root=data/nsd_store
    python tools/visualization/brain_maps.py --map NeuroFusionNet maps/subj08_pcc.nii.gz --out brain.png \
        --background /path/to/nsd/nsddata/ppdata/subj08/func1pt8mm/T1_to_func1pt8mm.nii.gz
"""

import argparse
import sys

from mmnfn.engine.run_config import report_error
from mmnfn.visualization.brain_maps import draw_brain_maps


def main(argv=None):
    """Draw the maps; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, help='figure to write, e.g. .png or .pdf')
    parser.add_argument(
        '--map', nargs=2, action='append', required=True, metavar=('NAME', 'NIFTI'), help='repeat for more maps'
    )
    parser.add_argument('--background', metavar='NIFTI', help='anatomy in the same space')
    parser.add_argument('--slices', type=int, default=7, help='number of slices (default: %(default)s)')
    parser.add_argument('--vmax', type=float, help='end of the colour scale (default: 99th percentile of all maps)')
    parser.add_argument('--threshold', type=float, help='do not draw smaller absolute values')
    args = parser.parse_args(argv)
    try:
        maps = dict(args.map)
        if len(maps) < len(args.map):
            raise ValueError('--map: a name is given twice.')
        draw_brain_maps(args.out, maps, args.background, args.slices, args.vmax, args.threshold)
    except (OSError, ValueError, ImportError) as error:
        return report_error('brain_maps.py', error)
    print(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
