"""Print what others need to know of this machine to help: paste it into an issue.

Example:
    python tools/collect_env.py
"""

import argparse

from mmnfn.engine.environment import collect_environment


def main(argv=None):
    """Print one line for each fact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    for name, value in collect_environment().items():
        print(f'{name}: {value}')


if __name__ == '__main__':
    main()
