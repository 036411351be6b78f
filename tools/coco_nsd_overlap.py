"""Find the COCO images that NSD used, and write annotation files without them.

Example:
    python tools/coco_nsd_overlap.py data/nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv \\
        --annotations data/coco/annotations/instances_train2017.json --out data/coco/annotations
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from mmnfn.nsd.coco_json import refuse_existing, write_json
from mmnfn.nsd.coco_overlap import nsd_coco_ids, overlap_table, remove_nsd_images
from mmnfn.nsd.release import parse_subjects


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('stim_info', type=Path, help='nsd_stim_info_merged.csv')
    parser.add_argument(
        '--subjects', nargs='+', help='count only images that these subjects see, e.g. 1 2 5 (default: all 73000)'
    )
    parser.add_argument('--annotations', nargs='+', type=Path, default=[], metavar='FILE', help='COCO annotation files')
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder for the copies <stem>_without_nsd.json')
    parser.add_argument('--ids', type=Path, metavar='FILE', help='JSON file to write the ids into, per split')
    parser.add_argument('--overwrite', action='store_true', help='overwrite copies and ids that exist')
    args = parser.parse_args(argv)
    try:
        if args.out is not None and not args.annotations:
            raise ValueError('--out is given without --annotations; name the files to copy.')
        if args.ids is not None:
            refuse_existing(args.ids, args.overwrite)
        ids = nsd_coco_ids(args.stim_info, parse_subjects(args.subjects) if args.subjects else None)
        results = remove_nsd_images(
            args.annotations, {i for found in ids.values() for i in found}, args.out, args.overwrite
        )
        written = [r.written for r in results if r.written is not None]
        if args.ids is not None:
            written.append(write_json(ids, args.ids, args.overwrite))
    except (ValueError, OSError) as error:
        print(f'coco_nsd_overlap.py: error: {error}', file=sys.stderr)
        return 1
    print(overlap_table(ids, results))
    for path in written:
        print(f'wrote {path}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
