"""Say what is in an NSD release tree, what is missing, and what can be done with it.

The same as ``mmnfn-nsd inspect``.

Example:
    python tools/inspect_nsd.py data/nsd --subjects 1 2
"""

import sys
from functools import partial

from mmnfn.nsd import cli

main = partial(cli.main, command='inspect')

if __name__ == '__main__':
    sys.exit(main())
