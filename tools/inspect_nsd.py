"""Say what is in an NSD release tree, what is missing, and what can be done with it.

The exit code is 1 if a file is damaged or does not belong; missing files are named with what they are needed for.

Example:
    python tools/inspect_nsd.py data/nsd --subjects 1 2
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from rich.console import Console

from mmnfn.nsd.inspection import inspect
from mmnfn.nsd.inspection_tables import render
from mmnfn.nsd.release import BETA_VERSIONS


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('nsd_root', type=Path, help='folder with nsddata/, nsddata_betas/ and nsddata_stimuli/')
    parser.add_argument('--subjects', nargs='+', help='e.g. 1 2 5 (default: all that have any file)')
    parser.add_argument('--beta-version', choices=sorted(BETA_VERSIONS), help='default: every version found')
    args = parser.parse_args(argv)
    try:
        report = inspect(args.nsd_root, args.subjects, args.beta_version and [args.beta_version])
    except (ValueError, OSError) as error:
        print(f'inspect_nsd.py: error: {error}', file=sys.stderr)
        return 1
    render(report, Console(width=None if sys.stdout.isatty() else 240))
    return report.exit_code


if __name__ == '__main__':
    sys.exit(main())
