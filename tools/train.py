"""Train a model from a config of MMPretrain, MMDetection or MMSegmentation, on GPUs or on a CPU machine.

Example:
    python tools/train.py configs/nfn/pretrain_nsd.py --amp
    python tools/train.py configs/nfn/pretrain_nsd.py --auto-scale-lr --cfg-options train_dataloader.batch_size=32
    python tools/train.py configs/nfn/pretrain_nsd.py --resume
    tools/dist_train.sh configs/nfn/pretrain_nsd.py 2
"""

import argparse
import sys

from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS

from mmnfn.disk import explained, no_room
from mmnfn.engine import run_config
from mmnfn.engine.annotation_check import check_annotations
from mmnfn.engine.cfg_options import CfgOptions
from mmnfn.engine.hooks.resume_epoch_hook import ResumeError
from mmnfn.engine.launch import LAUNCHERS, Runner, close_device, prepare_device
from mmnfn.engine.load_audit import LoadAuditError
from mmnfn.utils import DataError


def parse_args(argv=None):
    """Command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints; default ./work_dirs/<config name>')
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
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. data_root=FOLDER (also moves the paths that begin with it) '
        'train_dataloader.batch_size=4 model.backbone.init_cfg=None '
        'key="[a,b]" key="a name with blanks"',
    )
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='who started the processes')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')
    return parser.parse_args(argv)


def build_config(args):
    """The config of the run: the file, ``--cfg-options``, then the flags. Raises the errors that users can mend."""
    cfg = run_config.load_config(args.config, args.cfg_options)
    run_config.set_work_dir(cfg, args.config, args.work_dir)
    run_config.set_resume(cfg, args.resume)
    run_config.refuse_activation_checkpointing(cfg)
    if args.no_validate:
        run_config.disable_validation(cfg)
    if args.amp or args.amp_dtype:
        run_config.enable_amp(cfg, args.amp_dtype)
    if args.compile:
        run_config.enable_compile(cfg)
    run_config.use_accelerator(cfg)
    if args.auto_scale_lr:
        run_config.enable_auto_scale_lr(cfg)
    run_config.set_loader_defaults(cfg)
    run_config.check_pretrained(cfg)
    run_config.check_data(cfg, ('train_dataloader', 'val_dataloader'))
    check_annotations(cfg, ('train_dataloader', 'val_dataloader'))
    run_config.check_controls(cfg, ('val_dataloader',))
    run_config.note_subjects(cfg)
    return cfg


def main(argv=None):
    """Train; returns the exit code."""
    try:
        args = parse_args(argv)
        cfg = build_config(args)
        processes = prepare_device(cfg, args.launcher).world_size
        run_config.check_batch_size(cfg, processes)
        run_config.note_batch_size(cfg, processes)
        run_config.check_resumed(cfg)
    except (FileNotFoundError, ValueError) as error:
        return run_config.report_error('train.py', error)
    try:
        runner = Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
        runner.train()
    except (DataError, FloatingPointError, LoadAuditError, ResumeError) as error:  # which say it all
        return run_config.report_error('train.py', error)
    except OSError as error:
        if not no_room(error) or not is_main_process():
            raise
        remedy = f'Free space in {cfg.work_dir}, and go on with --resume'
        return run_config.report_error('train.py', explained(error, cfg.work_dir, remedy))
    close_device()
    return 0


if __name__ == '__main__':
    sys.exit(main())
