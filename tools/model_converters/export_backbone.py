"""Write the backbone of a training checkpoint, or of a config with random weights, for use in downstream tasks.

Example:
    python tools/model_converters/export_backbone.py work_dirs/pretrain_nsd/epoch_100.pth backbone.pth
    python tools/model_converters/export_backbone.py --random configs/nfn/pretrain_nsd.py random.pth --seed 1

OUT is loaded with init_cfg=dict(type='Pretrained', checkpoint=OUT, prefix='backbone.') by MMPretrain, MMDetection and
MMSegmentation. Either file can also be in the safetensors format (OUT.safetensors). Nothing in CHECKPOINT is run.
"""

import argparse
import sys

from mmnfn.engine import checkpoint, run_config


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', nargs='?', metavar='CHECKPOINT', help='training checkpoint or weights alone')
    parser.add_argument('out', metavar='OUT', help='file to write')
    parser.add_argument(
        '--random', metavar='CONFIG', help="take the backbone of CONFIG's model with random weights instead"
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of --random; default 0')
    parser.add_argument(
        '--prefix',
        default=checkpoint.PREFIX,
        help="where the backbone is in the model; default 'backbone.', '' if it is all of it",
    )
    run_config.add_arguments(parser, run=False)
    args = parser.parse_intermixed_args(argv)
    if (args.checkpoint is None) == (args.random is None):
        parser.error('give CHECKPOINT OUT, or --random CONFIG OUT')
    if args.random and args.prefix != checkpoint.PREFIX:
        parser.error('--prefix is of CHECKPOINT, and --random has none')
    return args


def main(argv=None):
    """Export; returns the exit code."""
    args = parse_args(argv)
    try:
        if args.random:
            meta = checkpoint.export_random(run_config.load_config(args.random, args.cfg_options), args.out, args.seed)
        else:
            meta = checkpoint.export_checkpoint(args.checkpoint, args.out, args.prefix)
    except (OSError, ValueError) as error:
        return run_config.report_error('export_backbone.py', error)
    print(
        f'{args.out}: {meta["backbone"].get("type", "backbone")}, epoch {meta["epoch"]}, iteration {meta["iter"]}, '
        f'seed {meta["seed"]}'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
