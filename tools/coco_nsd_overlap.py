"""Find the COCO images that NSD used, and write annotation files without them.

The same as ``mmnfn-nsd overlap``.

Example:
    python tools/coco_nsd_overlap.py data/nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv \\
        --annotations data/coco/annotations/instances_train2017.json --out data/coco/annotations
"""

import sys
from functools import partial

from mmnfn.nsd import cli

main = partial(cli.main, command='overlap')

if __name__ == '__main__':
    sys.exit(main())
