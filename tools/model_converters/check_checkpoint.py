"""Check whether a checkpoint loads wholly into a config's model, and print where every weight came from.

Example:
    python tools/model_converters/check_checkpoint.py configs/mask_rcnn/mask-rcnn_nfn-swin-s_fpn_1x_coco.py \\
        work_dirs/pretrain_nsd/backbone_latest.pth

The checkpoint takes the place of the one that the config's init_cfg=dict(type='Pretrained', …) names, with its prefix
and its loader; without such an init_cfg, or with --whole, it is loaded into the whole model, as tools/test.py does.
Nothing in the file is run. The exit code is 0 if every weight arrived, 1 if not, 2 if the files cannot be read.
"""

import argparse
import sys

from mmnfn.engine import run_config
from mmnfn.engine.load_audit import check_load


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='training checkpoint, export, or bare state dict')
    parser.add_argument('--whole', action='store_true', help='load it into the whole model, as tools/test.py does')
    run_config.add_arguments(parser, run=False)
    return parser.parse_args(argv)


def main(argv=None):
    """Check; returns the exit code."""
    args = parse_args(argv)
    try:
        audits = check_load(run_config.load_config(args.config, args.cfg_options), args.checkpoint, args.whole)
    except (FileNotFoundError, ValueError) as error:
        return run_config.report_error('check_checkpoint.py', error)
    for audit in audits:
        print(audit.table())
    problems = [audit.problem for audit in audits if audit.problem]
    print('\n'.join(problems) if problems else 'Every weight arrived.')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
