"""Turn the training data of the Algonauts 2023 challenge into ROI stores, one file per subject.

The same as ``mmnfn-nsd prepare-algonauts``.

Example:
    python tools/prepare_algonauts.py data/algonauts data/algonauts_store --fsaverage data/fsaverage --image-size 224
"""

import sys
from functools import partial

from mmnfn.nsd import cli

main = partial(cli.main, command='prepare-algonauts')

if __name__ == '__main__':
    sys.exit(main())
