"""Test a checkpoint with a config of MMPretrain, MMDetection or MMSegmentation, on GPUs or on a CPU machine.

Prints the metrics. --out writes the metrics; --dump writes the predictions.

Example:
    python tools/test.py configs/nfn/pretrain_nsd.py work_dirs/pretrain_nsd/epoch_100.pth --out metrics.json
    python tools/test.py configs/encoding/swin-s_nsd.py work_dirs/pretrain_nsd/backbone_latest.pth
    tools/dist_test.sh configs/mask_rcnn/mask-rcnn_nfn-swin-s_fpn_1x_coco.py CHECKPOINT 8
"""

import argparse
import sys

from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS

from mmnfn.disk import explained, no_room
from mmnfn.engine import predictions, run_config
from mmnfn.engine.annotation_check import check_annotations
from mmnfn.engine.cfg_options import CfgOptions
from mmnfn.engine.launch import LAUNCHERS, Runner, close_device, prepare_device
from mmnfn.engine.load_audit import LoadAuditError
from mmnfn.utils import DataError


def parse_args(argv=None):
    """Command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint of a trained model')
    parser.add_argument('--work-dir', help='folder of logs; default ./work_dirs/<config name>')
    parser.add_argument('--out', metavar='FILE', help='write the metrics to FILE (.json, .pkl or .yaml)')
    parser.add_argument('--dump', metavar='FILE.pkl', help='write the predictions to FILE.pkl, for offline evaluation')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. data_root=FOLDER (also moves the paths that begin with it) '
        'test_dataloader.batch_size=4 key="[a,b]" key="a name with blanks"',
    )
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder that gets images with drawn predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows an image')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='who started the processes')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')
    return parser.parse_args(argv)


def build_config(args):
    """The config of the run: the file, ``--cfg-options``, then the flags. Raises the errors that users can mend."""
    cfg = run_config.load_config(args.config, args.cfg_options)
    run_config.check_checkpoint(args.checkpoint)
    for file, flag, formats in (
        (args.out, '--out', predictions.METRIC_FORMATS),
        (args.dump, '--dump', predictions.DUMP_FORMATS),
    ):
        if file:
            predictions.check_suffix(file, flag, formats)
            run_config.check_writable(file, flag)
    run_config.set_work_dir(cfg, args.config, args.work_dir)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        predictions.enable_drawing(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        predictions.enable_tta(cfg)
    run_config.set_loader_defaults(cfg)
    run_config.check_data(cfg, ('test_dataloader',))
    check_annotations(cfg, ('test_dataloader',))
    run_config.check_controls(cfg, ('test_dataloader',))
    return cfg


def main(argv=None):
    """Test; returns the exit code."""
    try:
        args = parse_args(argv)
        cfg = build_config(args)
        prepare_device(cfg, args.launcher)
    except (FileNotFoundError, ValueError) as error:
        return run_config.report_error('test.py', error)
    try:
        runner = Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
        if args.dump:
            predictions.add_dump(runner, args.dump)
        metrics = runner.test()
        if is_main_process():
            print(predictions.format_metrics(metrics), flush=True)
            if args.out:
                predictions.write_metrics(metrics, args.out)
    except (DataError, LoadAuditError) as error:  # which say it all
        return run_config.report_error('test.py', error)
    except OSError as error:
        if not no_room(error) or not is_main_process():
            raise
        return run_config.report_error('test.py', explained(error, cfg.work_dir))
    close_device()
    return 0


if __name__ == '__main__':
    sys.exit(main())
