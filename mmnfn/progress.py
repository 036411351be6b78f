"""Progress bars that are silent where nobody watches."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm


def progress_bar(*args: Any, show: bool = True, **kwargs: Any) -> tqdm:
    """A tqdm bar that appears only if standard error is a terminal, so that log files and job outputs stay readable.

    Args:
        *args, **kwargs: Of tqdm.
        show: False hides it on a terminal, too.

    The environment variable ``MMNFN_PROGRESS=1`` shows bars everywhere, for programs that read them, as the demo does.
    """
    watched = sys.stderr.isatty() or os.environ.get('MMNFN_PROGRESS') == '1'
    return tqdm(*args, disable=not (show and watched), **kwargs)
