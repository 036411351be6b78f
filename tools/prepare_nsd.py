"""Turn an NSD release tree (or a simulated one) into ROI stores, one file per subject.

What was interrupted goes on at the session it was in when the same command is given again. A store
that is whole and was made of the same files in the same way is kept; remove it to have it made anew.

Example:
    python tools/prepare_nsd.py data/nsd data/nsd_store --image-size 224
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from mmnfn.nsd.preparation import NORMALIZATIONS, prepare
from mmnfn.nsd.release import BETA_VERSIONS, ROI_CLASSES, NSDLayout, parse_subjects
from mmnfn.nsd.verification import verify_store


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('nsd_root', type=Path, help='folder with nsddata/, nsddata_betas/ and nsddata_stimuli/')
    parser.add_argument('store', type=Path, help='folder to write into')
    parser.add_argument('--subjects', nargs='+', help='e.g. 1 2 5 (default: all that have betas)')
    parser.add_argument(
        '--rois',
        nargs='+',
        default=ROI_CLASSES,
        metavar='ROI',
        help=f'default: {" ".join(ROI_CLASSES)}; any other file of roi/ too, e.g. nsdgeneral',
    )
    parser.add_argument('--beta-version', default='b3', choices=sorted(BETA_VERSIONS))
    parser.add_argument('--max-sessions', type=int, help='use only the first sessions')
    parser.add_argument(
        '--normalization',
        default='train',
        choices=NORMALIZATIONS,
        help='trials whose mean and deviation z-score a session; none leaves percent signal change',
    )
    parser.add_argument('--dtype', default='float32', choices=('float16', 'float32'))
    parser.add_argument('--trials', action='store_true', help='keep the single trials too, not only their averages')
    parser.add_argument('--image-size', type=int, help='also write images_SIZE.h5, the pictures resized')
    parser.add_argument('--workers', type=int, default=1, help='subjects at a time')
    parser.add_argument(
        '--verify',
        type=int,
        metavar='N',
        help='read N random voxels of each subject again by another route, and compare',
    )
    args = parser.parse_args(argv)
    try:
        if args.verify is not None and args.verify < 1:
            raise ValueError(f'--verify is {args.verify}; it must be at least 1.')
        if args.image_size is not None and args.image_size < 16:
            raise ValueError(f'--image-size is {args.image_size}; it must be at least 16 pixels.')
        layout = NSDLayout(args.nsd_root, args.beta_version)
        subjects = parse_subjects(args.subjects) if args.subjects else layout.subjects()
        if not subjects:
            raise FileNotFoundError(
                f'{args.nsd_root} holds no {args.beta_version} betas of any subject. Choose another '
                '--beta-version, or download nsddata_betas/.'
            )
        before = {path: path.stat().st_ino for path in args.store.glob('*.h5')}
        paths = prepare(
            layout,
            args.store,
            subjects,
            args.image_size,
            args.workers,
            roi_classes=args.rois,
            max_sessions=args.max_sessions,
            normalization=args.normalization,
            dtype=args.dtype,
            trials=args.trials,
        )
        for path in paths:
            print(f'{"kept" if before.get(path) == path.stat().st_ino else "wrote"} {path}')
        if args.verify is not None:
            for path in paths[: len(subjects)]:
                voxels, difference = verify_store(layout, path, args.verify)
                print(f'{path}: {voxels} voxels read again, largest difference {difference:.1e}')
    except (ValueError, OSError) as error:
        print(f'prepare_nsd.py: error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
