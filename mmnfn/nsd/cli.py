"""The command line of ``mmnfn.nsd``: ``mmnfn-nsd inspect|prepare|prepare-algonauts|overlap``, and tools/*.py alike."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Optional, Sequence

from . import algonauts, coco
from .check import inspect, verify_store
from .design import NORMALIZATIONS
from .preparation import prepare
from .release import BETA_VERSIONS, ROI_CLASSES, NSDLayout, parse_subjects


def run_inspect(parser: ArgumentParser, argv: Optional[Sequence[str]]) -> int:
    """Say what is in an NSD release tree, what is missing, and what can be done with it.

    The exit code is 1 if a file is damaged or does not belong; missing files are named with what they are needed for.
    """
    parser.add_argument('nsd_root', type=Path, help='folder with nsddata/, nsddata_betas/ and nsddata_stimuli/')
    parser.add_argument('--subjects', nargs='+', help='e.g. 1 2 5 (default: all that have any file)')
    parser.add_argument('--beta-version', choices=sorted(BETA_VERSIONS), help='default: every version found')
    args = parser.parse_args(argv)
    report = inspect(args.nsd_root, args.subjects, args.beta_version)
    print(report)
    return int(bool(report.problems))


def run_prepare(parser: ArgumentParser, argv: Optional[Sequence[str]]) -> int:
    """Turn an NSD release tree (or a simulated one) into ROI stores, one file per subject.

    A run that was interrupted goes on at the session it was in when the same command is given again. A store that is
    whole and was made of the same files in the same way is kept; remove it to have it made anew.
    """
    parser.add_argument('nsd_root', type=Path, help='folder with nsddata/, nsddata_betas/ and nsddata_stimuli/')
    parser.add_argument('store', type=Path, help='folder to write into')
    parser.add_argument('--subjects', nargs='+', help='e.g. 1 2 5 (default: all that have betas)')
    rois = (
        f'default: {" ".join(ROI_CLASSES)}; also any other file of roi/, e.g. HCP_MMP1, and paths of your own masks '
        '(.nii.gz), in which {subject} stands for subj01, subj02, …'
    )
    parser.add_argument('--rois', nargs='+', default=ROI_CLASSES, metavar='ROI', help=rois)
    parser.add_argument('--beta-version', default='b3', choices=sorted(BETA_VERSIONS))
    parser.add_argument('--max-sessions', type=int, help='use only the first sessions')
    trials = 'trials whose mean and std z-score a session; none leaves percent signal change'
    parser.add_argument('--normalization', default='train', choices=NORMALIZATIONS, help=trials)
    parser.add_argument('--dtype', default='float32', choices=('float16', 'float32'))
    parser.add_argument('--trials', action='store_true', help='keep the single trials too, not only their averages')
    parser.add_argument('--image-size', type=int, help='also write images_SIZE.h5, the resized images')
    parser.add_argument('--workers', type=int, default=1, help='subjects at a time')
    parser.add_argument(
        '--verify', type=int, metavar='N', help='read N voxels of each again by another route, and compare'
    )
    args = parser.parse_args(argv)
    if args.verify is not None and args.verify < 1:
        raise ValueError(f'--verify is {args.verify}; it must be at least 1.')
    if args.image_size is not None and args.image_size < 16:
        raise ValueError(f'--image-size is {args.image_size}; it must be at least 16 pixels.')
    layout = NSDLayout(args.nsd_root, args.beta_version)
    before = {path: path.stat().st_ino for path in args.store.glob('*.h5')}
    paths = prepare(
        layout,
        args.store,
        args.subjects,
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
    for path in (path for path in paths if args.verify and path.name.startswith('subj')):
        voxels, difference = verify_store(layout, path, args.verify)
        print(f'{path}: {voxels} voxels read again, largest difference {difference:.1e}')
    return 0


def run_prepare_algonauts(parser: ArgumentParser, argv: Optional[Sequence[str]]) -> int:
    """Turn the training data of the Algonauts 2023 challenge into ROI stores, one file per subject."""
    parser.add_argument('root', type=Path, help='folder with subj0N/training_split/ and subj0N/roi_masks/')
    parser.add_argument('store', type=Path, help='folder to write into')
    parser.add_argument('--subjects', nargs='+', help='e.g. 1 2 5 (default: all that are there)')
    surfaces = "folder with lh.white and rh.white (or surf/), or nilearn's white_left.gii.gz and white_right.gii.gz"
    parser.add_argument('--fsaverage', type=Path, metavar='DIR', help=surfaces)
    shared = 'nsd_stim_info_merged.csv: test = the shared images (shared1000)'
    parser.add_argument('--stim-info', type=Path, metavar='CSV', help=shared)
    drawn = 'without --stim-info: share of the images drawn for the test'
    parser.add_argument('--test-fraction', type=float, default=0.1, help=drawn)
    parser.add_argument('--seed', type=int, default=0, help='of that draw')
    parser.add_argument('--image-size', type=int, metavar='N', help='also write images_N.h5, the resized images')
    published = 'folder with subj0N/test_split/noise_ceiling/ (default: noise ceilings are unknown)'
    parser.add_argument('--noise-ceiling', type=Path, metavar='DIR', help=published)
    args = parser.parse_args(argv)
    subjects = parse_subjects(args.subjects) if args.subjects else None
    split = algonauts.SplitRule(args.stim_info, args.test_fraction, args.seed)
    for path in algonauts.prepare(
        args.root, args.store, subjects, args.fsaverage, split, args.image_size, args.noise_ceiling
    ):
        print(f'wrote {path}')
    return 0


def run_overlap(parser: ArgumentParser, argv: Optional[Sequence[str]]) -> int:
    """Find the COCO images that NSD used, and write annotation files without them."""
    parser.add_argument('stim_info', type=Path, help='nsd_stim_info_merged.csv')
    parser.add_argument('--subjects', nargs='+', help='only images that these see, e.g. 1 2 5 (default: all 73000)')
    parser.add_argument('--annotations', nargs='+', type=Path, default=[], metavar='FILE', help='COCO annotation files')
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder for the copies <stem>_without_nsd.json')
    parser.add_argument('--ids', type=Path, metavar='FILE', help='JSON file to write the ids into, per split')
    parser.add_argument('--overwrite', action='store_true', help='overwrite copies and ids that exist')
    args = parser.parse_args(argv)
    if args.out is not None and not args.annotations:
        raise ValueError('--out is given without --annotations; name the files to copy.')
    if args.ids is not None:
        coco.refuse_existing(args.ids, args.overwrite)
    ids = coco.nsd_coco_ids(args.stim_info, parse_subjects(args.subjects) if args.subjects else None)
    table = coco.remove_nsd_images(args.annotations, sum(ids.values(), []), args.out, args.overwrite)
    written = [path for path in table.written if path is not None]
    if args.ids is not None:
        coco.write_json(ids, args.ids)
        written.append(args.ids)
    counts = ', '.join(f'{len(found)} of {split}' for split, found in ids.items())
    print(f'images used by NSD: {sum(map(len, ids.values()))} ({counts})')
    if len(table):
        print(table.drop(columns='written').to_string(index=False))
    for path in written:
        print(f'wrote {path}')
    return 0


COMMANDS = {
    'inspect': run_inspect,
    'prepare': run_prepare,
    'prepare-algonauts': run_prepare_algonauts,
    'overlap': run_overlap,
}


def main(argv: Optional[Sequence[str]] = None, command: Optional[str] = None) -> int:
    """Run ``mmnfn-nsd COMMAND …``, or the command that a script in tools/ stands for.

    Args:
        argv: The arguments; by default those of the process.
        command: The command; None if it is the first argument.

    Returns:
        The exit code; bad input is one line on standard error, and 1.
    """
    argv, prog = sys.argv[1:] if argv is None else list(argv), Path(sys.argv[0]).name
    if command is None:
        choice = ArgumentParser(prog, description=__doc__)
        choice.add_argument('command', choices=COMMANDS)
        command = choice.parse_args(argv[:1]).command
        argv, prog = argv[1:], f'{prog} {command}'
    run = COMMANDS[command]
    try:
        return run(ArgumentParser(prog, description=run.__doc__, formatter_class=RawDescriptionHelpFormatter), argv)
    except (ValueError, OSError) as error:
        print(f'{prog}: error: {error}', file=sys.stderr)
        return 1
