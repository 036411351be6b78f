"""Print what others need to know of this machine to help: paste it into an issue.

Example:
    python tools/collect_env.py
"""

import argparse
import importlib.util
import sys
from pathlib import Path


def main(argv=None):
    """Print one line for each fact; returns the exit code, 1 where mmnfn cannot be imported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    try:
        from mmnfn.engine.environment import collect_environment
    except ImportError as error:  # then the libraries are what is wrong, and stack.py needs none of them
        print(f'mmnfn cannot be imported: {error}')
        above = Path(__file__).resolve().parents  # the repository's tools, or those in an installed package's .mim
        path = next(path for path in (above[1] / 'mmnfn/stack.py', above[2] / 'stack.py') if path.is_file())
        spec = importlib.util.spec_from_file_location('stack', path)
        stack = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(stack)
        for name, versions in stack.installed_stacks().items():
            print(f'Stack: {name}: {", ".join(" ".join(pair) for pair in versions.items()) or "nothing installed"}')
        print(f'Python: {sys.version}')
        return 1
    for name, value in collect_environment().items():
        print(f'{name}: {value}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
