"""Turn the training data of the Algonauts 2023 challenge into ROI stores, one file per subject.

Example:
    python tools/prepare_algonauts.py data/algonauts data/algonauts_store --fsaverage data/fsaverage --image-size 224
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from mmnfn.nsd.algonauts import AlgonautsLayout
from mmnfn.nsd.algonauts_preparation import SplitRule, prepare
from mmnfn.nsd.release import parse_subjects


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'root', type=Path, help='folder with subj01/ … subj08/, each with training_split/ and roi_masks/'
    )
    parser.add_argument('store', type=Path, help='folder to write into')
    parser.add_argument('--subjects', nargs='+', help='e.g. 1 2 5 (default: all that are there)')
    parser.add_argument(
        '--fsaverage',
        type=Path,
        metavar='DIR',
        help="folder with lh.white and rh.white (or surf/), or with nilearn's white_left.gii.gz and white_right.gii.gz",
    )
    parser.add_argument(
        '--stim-info', type=Path, metavar='CSV', help='nsd_stim_info_merged.csv: test = the shared images (shared1000)'
    )
    parser.add_argument(
        '--test-fraction', type=float, default=0.1, help='without --stim-info: share of the images drawn for the test'
    )
    parser.add_argument('--seed', type=int, default=0, help='of that draw')
    parser.add_argument('--image-size', type=int, metavar='N', help='also write images_N.h5, the pictures resized')
    parser.add_argument(
        '--noise-ceiling',
        type=Path,
        metavar='DIR',
        help="folder of the challenge's test data: take subj0N/test_split/noise_ceiling/{lh,rh}_noise_ceiling.npy "
        '(default: noise ceilings are unknown)',
    )
    args = parser.parse_args(argv)
    try:
        layout = AlgonautsLayout(args.root)
        paths = prepare(
            layout,
            args.store,
            parse_subjects(args.subjects) if args.subjects else layout.subjects(),
            args.fsaverage,
            SplitRule(args.stim_info, args.test_fraction, args.seed),
            args.image_size,
            test_data=args.noise_ceiling,
        )
    except (ValueError, OSError) as error:
        print(f'prepare_algonauts.py: error: {error}', file=sys.stderr)
        return 1
    print('\n'.join(f'wrote {path}' for path in paths))
    return 0


if __name__ == '__main__':
    sys.exit(main())
