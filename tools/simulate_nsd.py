"""Write a simulated world in the layouts of NSD, COCO and ADE20K.

Example:
    python tools/simulate_nsd.py data/sim --subjects 4 --sessions 2 --seed 0
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from mmnfn.simulation.world import WorldConfig, describe, simulate


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Returns the exit code."""
    defaults = WorldConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to make')
    parser.add_argument('--subjects', type=int, default=defaults.subjects, help='how many, 1 to 8')
    parser.add_argument(
        '--sessions',
        type=int,
        nargs='+',
        default=defaults.sessions,
        help='sessions of 750 trials; one value, or one for each subject',
    )
    parser.add_argument('--seed', type=int, default=defaults.seed, help='the same seed gives identical files')
    parser.add_argument(
        '--voxel-mm',
        type=float,
        default=defaults.voxel_mm,
        help="edge of a voxel; 1.8 is NSD's own and makes sessions of 1.1 GB",
    )
    parser.add_argument(
        '--shared-fraction',
        type=float,
        default=defaults.shared_fraction,
        help="share of a subject's images that everybody sees",
    )
    parser.add_argument('--stimulus-size', type=int, default=defaults.stimulus_size, help='pixels; 425 in NSD')
    parser.add_argument(
        '--snr',
        type=float,
        default=defaults.snr,
        help="signal to noise, in multiples of NSD's; 100 is as good as no noise",
    )
    parser.add_argument('--beta-version', default=defaults.beta_version, choices=('b1', 'b2', 'b3'))
    parser.add_argument('--nifti', action='store_true', help='also write betas as .nii.gz')
    parser.add_argument(
        '--downstream',
        type=int,
        nargs=4,
        default=defaults.downstream,
        metavar=('COCO_TRAIN', 'COCO_VAL', 'ADE_TRAIN', 'ADE_VAL'),
        help='pictures for other tasks',
    )
    parser.add_argument('--downstream-size', type=int, default=defaults.downstream_size, help='pixels')
    parser.add_argument('--images', type=Path, help='folder of photographs to use as stimuli')
    parser.add_argument('--annotations', type=Path, help='their COCO instances file')
    parser.add_argument('--workers', type=int, default=defaults.workers, help='processes that draw')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT')
    args = vars(parser.parse_args(argv))
    out, overwrite = args.pop('out'), args.pop('overwrite')
    args['sessions'], args['downstream'] = tuple(args['sessions']), tuple(args['downstream'])
    try:
        simulate(out, WorldConfig(**args), overwrite)
    except (ValueError, OSError) as error:
        print(f'simulate_nsd.py: error: {error}', file=sys.stderr)
        return 1
    print('\n'.join([f'{out} is ready.'] + describe(out)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
