"""Train a model from a config of MMPretrain, MMDetection or MMSegmentation, on GPUs or on a CPU machine.

Example:
    python tools/train.py configs/nfn/pretrain_nsd.py --amp
    python tools/train.py configs/nfn/pretrain_nsd.py --auto-scale-lr --cfg-options train_dataloader.batch_size=32
    python tools/train.py configs/nfn/pretrain_nsd.py --resume
    tools/dist_train.sh configs/nfn/pretrain_nsd.py 2
"""

import argparse
import sys

from mmnfn.engine import run_config
from mmnfn.engine.annotation_check import check_annotations
from mmnfn.engine.launch import Runner, close_device, prepare_device
from mmnfn.utils import UserError

LOADERS = ('train_dataloader', 'val_dataloader')


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH|auto',
        help='continue from a training checkpoint; without a path from the newest one in the work folder',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPUs only)')
    parser.add_argument(
        '--amp-dtype',
        choices=('bfloat16', 'float16'),
        help='of --amp; default bfloat16 where the GPU has it, else float16 with a scaled loss',
    )
    parser.add_argument('--compile', action='store_true', help='compile the backbone')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by (batch size of all processes) / auto_scale_lr.base_batch_size',
    )
    parser.add_argument('--no-validate', action='store_true', help='do not validate during training')
    run_config.add_arguments(parser)
    return parser.parse_args(argv)


def merge_args(cfg, args):
    """Put the flags into the config, and check it."""
    run_config.set_work_dir(cfg, args.config, args.work_dir)
    run_config.set_resume(cfg, args.resume)
    run_config.set_loader_defaults(cfg)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp or args.amp_dtype:
        run_config.enable_amp(cfg, args.amp_dtype)
    if args.compile:
        cfg.compile_backbone = True
    if args.auto_scale_lr:
        run_config.enable_auto_scale_lr(cfg)
    run_config.use_accelerator(cfg)
    run_config.refuse_activation_checkpointing(cfg)
    run_config.check_pretrained(cfg)
    run_config.check_data(cfg, LOADERS)
    run_config.check_controls(cfg, ('val_dataloader',))
    check_annotations(cfg, LOADERS)
    return cfg


def main(argv=None):
    """Train; return the exit code."""
    args = parse_args(argv)
    try:
        cfg = merge_args(run_config.load_config(args.config, args.cfg_options), args)
        processes = prepare_device(cfg, args.launcher)
        run_config.check_batch_size(cfg, processes)
        Runner.from_cfg(cfg).train()
    except (UserError, OSError, FloatingPointError) as error:
        return run_config.report_error('train.py', error)
    close_device()
    return 0


if __name__ == '__main__':
    sys.exit(main())
