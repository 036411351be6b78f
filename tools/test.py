"""Test a checkpoint with a config of MMPretrain, MMDetection or MMSegmentation, on GPUs or on a CPU machine.

Prints the metrics. --out writes the metrics; --dump writes the predictions.

Example:
    python tools/test.py configs/nfn/pretrain_nsd.py work_dirs/pretrain_nsd/epoch_100.pth --out metrics.json
    python tools/test.py configs/encoding/swin-s_nsd.py work_dirs/pretrain_nsd/backbone_latest.pth
    python tools/test.py configs/encoding/low-level_nsd.py
    tools/dist_test.sh configs/mask_rcnn/mask-rcnn_nfn-swin-s_fpn_1x_coco.py CHECKPOINT 8
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults

from mmnfn.engine import run_config
from mmnfn.engine.annotation_check import check_annotations
from mmnfn.engine.launch import Runner, close_device, prepare_device
from mmnfn.utils import UserError, atomic_write


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file')
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', nargs='?', help='checkpoint of a trained model; none if it has no weights'
    )
    parser.add_argument('--out', metavar='FILE.json', help='write the metrics to FILE.json')
    parser.add_argument('--dump', metavar='FILE.pkl', help='write the predictions to FILE.pkl, for offline evaluation')
    parser.add_argument('--show', action='store_true', help='show predictions in a window (detection, segmentation)')
    parser.add_argument('--show-dir', help='folder that gets images with drawn predictions')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation by the config's tta_model")
    run_config.add_arguments(parser)
    return parser.parse_intermixed_args(argv)  # CHECKPOINT may stand behind options


def merge_args(cfg, args):
    """Put the flags into the config, and check it."""
    if args.checkpoint is not None:
        run_config.need_file(
            args.checkpoint, 'CHECKPOINT', 'Training writes checkpoints to ./work_dirs/<config name>/.'
        )
    cfg.load_from, cfg.resume = args.checkpoint, False
    run_config.set_work_dir(cfg, args.config, args.work_dir)
    run_config.set_loader_defaults(cfg)
    for path in filter(None, (args.out, args.dump)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    if args.show or args.show_dir:
        draw_predictions(cfg, args)
    if args.tta:
        augment(cfg)
    run_config.check_data(cfg, ('test_dataloader',))
    run_config.check_controls(cfg, ('test_dataloader',))
    check_annotations(cfg, ('test_dataloader',))
    return cfg


def draw_predictions(cfg, args):
    """Let the visualization hook of MMDetection or MMSegmentation draw (``--show``, ``--show-dir``)."""
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError('--show, --show-dir: the config has no default_hooks.visualization. Leave the flag out.')
    hook.update(draw=True, show=args.show, wait_time=2)
    if args.show_dir and cfg.default_scope == 'mmdet':
        hook.test_out_dir = args.show_dir
    elif args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def augment(cfg):
    """Test with the config's ``tta_model`` and ``tta_pipeline`` (``--tta``)."""
    if not cfg.get('tta_model') or not cfg.get('tta_pipeline'):
        raise UserError('--tta: the config has no tta_model or no tta_pipeline. Add it, or leave the flag out.')
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


class DumpLabelMaps(DumpResults):
    """Dump label maps as uint8, without the scores, which are (classes, H, W) floats for each image."""

    def process(self, data_batch, predictions):
        """Keep the small part of each prediction."""

        def small(value):
            return dict(data=value['data'].to(torch.uint8)) if isinstance(value, dict) else value

        kept = [{k: small(v) for k, v in one.items() if k != 'seg_logits'} for one in predictions]
        super().process(data_batch, kept)


def add_dump(runner, path):
    """Write the predictions, a list with a dict for each sample (``--dump``)."""
    from mmnfn.evaluation import DumpSubjectResults, EncodingMetric
    from mmnfn.evaluation.gathered_metric import GatheredMetric

    scope, metrics = runner.cfg.get('default_scope'), runner.test_evaluator.metrics
    if type(metrics[0]) is EncodingMetric:  # whose ridge predicts, not the model
        metrics[0].prediction_file = path
        return
    Dump = DumpLabelMaps if scope == 'mmseg' else DumpResults
    if scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults as Dump
    elif any(isinstance(metric, GatheredMetric) for metric in metrics):
        Dump = DumpSubjectResults
    metrics.append(Dump(out_file_path=path))


def main(argv=None):
    """Test; return the exit code."""
    args = parse_args(argv)
    try:
        cfg = merge_args(run_config.load_config(args.config, args.cfg_options), args)
        prepare_device(cfg, args.launcher)
        runner = Runner.from_cfg(cfg)
        if args.checkpoint is None and any(True for _ in runner.model.parameters()):
            raise UserError(
                f'CHECKPOINT is missing: the model of {args.config} has weights, so name the file they are in.'
            )
        if args.dump:
            add_dump(runner, args.dump)
        metrics = runner.test()
        if is_main_process():
            width = max(map(len, metrics), default=0)
            for name, value in metrics.items():
                print(f'{name:<{width}}  {value:.4f}' if isinstance(value, float) else f'{name:<{width}}  {value}')
            if args.out:
                with atomic_write(args.out) as temporary:
                    temporary.write_text(json.dumps(metrics, indent=2, default=lambda value: value.tolist()))
    except (UserError, OSError, FloatingPointError) as error:
        return run_config.report_error('test.py', error)
    close_device()
    return 0


if __name__ == '__main__':
    sys.exit(main())
