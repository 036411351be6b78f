"""What ``tools/test.py`` adds to a test run: dumps, drawn images, test-time augmentation and the output of metrics."""

from __future__ import annotations

import os
import os.path as osp
import pickle
from copy import deepcopy
from typing import Any, Dict, Sequence

import mmengine
import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from mmnfn.utils import atomic_write

DUMP_FORMATS = ('.pkl', '.pickle')
METRIC_FORMATS = ('.json', '.pkl', '.pickle', '.yaml', '.yml')


def check_suffix(path: str, flag: str, suffixes: Sequence[str]) -> None:
    """Raise ValueError for an output file whose format cannot be written."""
    if osp.splitext(path)[1] not in suffixes:
        raise ValueError(f'{flag}: {path!r} must end in one of {", ".join(suffixes)}.')


class WholeDump:
    """Of a metric that dumps: its file is replaced as a whole."""

    def compute_metrics(self, results: list) -> dict:
        """Write the predictions."""
        with atomic_write(self.out_file_path) as temporary, open(temporary, 'wb') as file:
            pickle.dump(results, file)
        return {}


class DumpSegResults(WholeDump, DumpResults):
    """Predicted and true label maps as uint8, without the class scores, which are (classes, H, W) floats per image."""

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Keep everything of the predictions but ``seg_logits``."""
        super().process(
            data_batch,
            [
                {key: _small(value) for key, value in prediction.items() if key != 'seg_logits'}
                for prediction in predictions
            ],
        )


def _small(value: Any) -> Any:
    """Integer label maps below a prediction as uint8 where they fit."""
    if isinstance(value, dict):
        return {key: _small(child) for key, child in value.items()}
    if (
        isinstance(value, torch.Tensor)
        and value.dtype == torch.int64
        and value.numel()
        and value.min() >= 0
        and (value.max() < 256)
    ):
        return value.to(torch.uint8)
    return value


def add_dump(runner: Runner, path: str) -> None:
    """``--dump``: write the predictions of a test run to a pickle file, a list with a dict for each sample.

    For tests on NSD see :class:`mmnfn.evaluation.DumpSubjectResults`; for MMDetection and MMSegmentation a dict is what
    their own tools dump (label maps as uint8, no class scores).

    Args:
        runner: A runner that has not tested yet.
        path: ``.pkl`` file.

    Raises:
        ValueError: The config's test loop has no evaluator that sees predictions.
    """
    evaluator = getattr(runner.test_loop, 'evaluator', None)
    if evaluator is None:
        raise ValueError(
            f'--dump: {type(runner.test_loop).__name__} of this config does not collect predictions. Leave '
            'the flag out.'
        )
    scope = runner.cfg.get('default_scope')
    Dump = DumpSegResults
    if scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        Dump = type('DumpDetResults', (WholeDump, DumpDetResults), {})
    elif scope != 'mmseg':
        Dump = type('DumpResults', (WholeDump, DumpResults), {})
    if scope == 'mmpretrain':
        from mmnfn.evaluation import DumpSubjectResults
        from mmnfn.evaluation.gathered_metric import GatheredMetric

        if any(isinstance(metric, GatheredMetric) for metric in evaluator.metrics):
            Dump = DumpSubjectResults
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    evaluator.metrics.append(Dump(out_file_path=path))


def enable_drawing(cfg: Config, show: bool, show_dir: str, wait_time: float) -> None:
    """``--show``, ``--show-dir``, ``--wait-time``: the visualization hook of the config's library draws predictions.

    Raises:
        ValueError: The config has no visualization hook.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise ValueError(
            '--show/--show-dir: the config has no default_hooks.visualization. Add the visualization hook of '
            'its library, or leave the flag out.'
        )
    hook['show'] = show
    hook['wait_time'] = wait_time
    scope = cfg.get('default_scope')
    if scope == 'mmpretrain':
        hook['enable'] = True
        hook['out_dir'] = show_dir
        return
    hook['draw'] = True
    if show_dir and scope == 'mmseg':
        cfg.visualizer['save_dir'] = show_dir
    elif show_dir:
        hook['test_out_dir'] = show_dir


def enable_tta(cfg: Config) -> None:
    """``--tta``: the config's ``tta_model`` and ``tta_pipeline``, else each library's default, a horizontal flip.

    Raises:
        ValueError: A config without ``tta_model`` or ``tta_pipeline`` whose library has no default, or of a data set of
            responses, where an embedding is wanted and no class.
    """
    scope = cfg.get('default_scope')
    missing = [name for name in ('tta_model', 'tta_pipeline') if cfg.get(name) is None]
    if missing and scope not in ('mmdet', 'mmpretrain'):
        raise ValueError(f'--tta: the config has no {" and no ".join(missing)}. Add it, or leave the flag out.')
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if missing and str(dataset.get('type')).split('.')[-1] == 'NSDDataset':
        raise ValueError('--tta: retrieval and encoding have no test-time augmentation. Leave the flag out.')
    if 'tta_model' in missing:
        cfg.tta_model = (
            ConfigDict(type='mmpretrain.AverageClsScoreTTA')
            if scope == 'mmpretrain'
            else ConfigDict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
        )
    if 'tta_pipeline' in missing:
        pack = deepcopy(dataset.pipeline[-1])
        if scope == 'mmdet':
            pack = dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
            )
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.tta_pipeline = list(deepcopy(dataset.pipeline[:-1])) + [
            dict(type='TestTimeAug', transforms=[flips, [pack]])
        ]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def plain_metrics(metrics: Dict[str, Any]) -> Dict[str, Any]:
    """Metrics with plain Python values, ready for JSON."""
    plain = {}
    for name, value in metrics.items():
        if hasattr(value, 'tolist'):
            value = value.tolist()
        plain[name] = value
    return plain


def write_metrics(metrics: Dict[str, Any], path: str) -> None:
    """``--out``: write the metrics of a test run to a .json, .pkl or .yaml file."""
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    form = osp.splitext(path)[1][1:]
    with atomic_write(path) as temporary:
        mmengine.dump(plain_metrics(metrics), temporary, form, **(dict(indent=2) if form == 'json' else {}))


def format_metrics(metrics: Dict[str, Any]) -> str:
    """Metrics as lines ``name  value``, in their own order."""
    width = max((len(name) for name in metrics), default=0)
    lines = []
    for name, value in plain_metrics(metrics).items():
        lines.append(f'{name:<{width}}  {value:.4f}' if isinstance(value, float) else f'{name:<{width}}  {value}')
    return '\n'.join(lines)
