"""Write a simulated world in the layouts of NSD, COCO and ADE20K.

Example:
    python tools/simulate_nsd.py data/sim --subjects 4 --sessions 2 --seed 0
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from mmnfn.simulation.world import WorldConfig, describe, simulate

HELP = dict(
    subjects='how many, 1 to 8',
    sessions='sessions of 750 trials; one value, or one per subject',
    seed='the same seed gives identical files',
    voxel_mm="edge of a voxel; NSD's 1.8 makes sessions of 1.1 GB",
    shared_fraction="share of a subject's images that everybody sees",
    stimulus_size='pixels; 425 in NSD',
    snr="signal to noise in multiples of NSD's; 100 is as good as no noise",
    downstream='images for other tasks: COCO train and val, ADE20K training and validation',
    downstream_size='pixels',
    workers='processes that draw',
)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Simulate; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to make')
    for name, text in HELP.items():
        default = WorldConfig._field_defaults[name]
        several = dict(sessions='+', downstream=4).get(name)
        kind = type(default[0] if several else default)
        flag = '--' + name.replace('_', '-')
        parser.add_argument(flag, type=kind, nargs=several, default=default, help=f'{text} (default: %(default)s)')
    parser.add_argument('--beta-version', default='b3', choices=('b1', 'b2', 'b3'))
    parser.add_argument('--nifti', action='store_true', help='also write betas as .nii.gz')
    parser.add_argument('--images', type=Path, help='folder of photographs to use as stimuli')
    parser.add_argument('--annotations', type=Path, help='their COCO instances file')
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
