"""Publish a trained model: a folder with weights, config and index entry, ready to be handed on.

Example:
    python tools/model_converters/publish_model.py work_dirs/pretrain_nsd/epoch_100.pth published

writes published/pretrain_nsd_YYYYMMDD-sha8.pth (weights and plain metadata: config, NSD subjects, seed, versions, git
revision), published/pretrain_nsd.py and published/metafile.yml. Then, anywhere:

    model = mmnfn.get_model('pretrain_nsd', index='published/metafile.yml')
"""

import argparse
import sys

from mmnfn.apis.publish import publish
from mmnfn.engine import run_config


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint written by tools/train.py')
    parser.add_argument('out', metavar='OUT', help='folder to publish into; other models in it stay')
    parser.add_argument('--name', help="name of the model; default that of the checkpoint's folder")
    return parser.parse_args(argv)


def main(argv=None):
    """Publish; returns the exit code."""
    args = parse_args(argv)
    try:
        published = publish(args.checkpoint, args.out, args.name)
    except (OSError, ValueError) as error:
        return run_config.report_error('publish_model.py', error)
    for path in published:
        print(path)
    return 0


if __name__ == '__main__':
    sys.exit(main())
