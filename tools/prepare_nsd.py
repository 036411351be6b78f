"""Turn an NSD release tree (or a simulated one) into ROI stores, one file per subject.

The same as ``mmnfn-nsd prepare``.

Example:
    python tools/prepare_nsd.py data/nsd data/nsd_store --image-size 224
"""

import sys
from functools import partial

from mmnfn.nsd import cli

main = partial(cli.main, command='prepare')

if __name__ == '__main__':
    sys.exit(main())
