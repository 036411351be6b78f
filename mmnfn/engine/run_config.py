"""What ``tools/train.py`` and ``tools/test.py`` share: reading a config, and checks before a Runner exists.

The checks are for mistakes that are made often, or that would end in a run that is wrong and does not say so. Each
error names the file or the setting, what was found and what to do.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import os.path as osp
import platform
import sys
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner

from mmnfn.nsd.release import subject_names
from mmnfn.registry import DATASETS
from mmnfn.utils import DataError, UserError, is_disk_full, walk

from .checkpoint import last_checkpoint
from .launch import LAUNCHERS, is_first_of_machine, is_first_process

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# What a run reads of a config; other names are variables of the file, which has been read when an option comes.
SETTINGS = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'auto_scale_lr', 'compile', 'compile_backbone', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'sync_bn', 'tta_model', 'tta_pipeline'),
}
# Settings that may have paths in them.
PATHS = (*LOADERS, 'val_evaluator', 'test_evaluator', 'model', 'tta_model', 'tta_pipeline')


class CfgOptions(DictAction):
    """Parse ``--cfg-options`` like MMEngine, and keep the blanks of a path."""

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        return val if ' ' in val and not set(val) & set(',[(') else DictAction._parse_iterable(val)


def add_arguments(parser: argparse.ArgumentParser, run: bool = True) -> None:
    """Add ``--cfg-options`` to a command line, and with ``run`` what starting a run needs as well."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='change settings of the config, e.g. data_root=FOLDER (also moves the paths that begin with it) '
        'train_dataloader.batch_size=4 model.backbone.init_cfg=None key="[a,b]"',
    )
    if run:
        parser.add_argument('--work-dir', help='folder of logs and checkpoints; default ./work_dirs/<config name>')
        parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='who started the processes')
        parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')


def report_error(program: str, error: Exception) -> int:
    """Print an error in one line and return the exit code 2.

    Several processes usually find the same error, and the first of each machine prints it. Damaged data and a full disk
    may be found by another process alone.
    """
    if is_first_of_machine() or isinstance(error, DataError) or is_disk_full(error):
        where = '' if is_first_process() else f' (on {platform.node()})'
        print(f'{program}: error: {error}{where}', file=sys.stderr, flush=True)
    return 2


def load_config(path: str, options: Optional[Dict[str, Any]] = None) -> Config:
    """Read a config file and merge ``--cfg-options`` into it.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: A package that it needs cannot be imported, or an option changes nothing.
    """
    need_file(path, 'CONFIG', 'The shipped configs are under configs/.')
    try:
        cfg = Config.fromfile(path)
        if cfg.get('default_scope') in ('mmpretrain', 'mmdet', 'mmseg'):  # MMEngine does not say if this fails
            importlib.import_module(cfg.default_scope)
    except (ImportError, AssertionError) as error:  # AssertionError: the libraries' check of the mmcv version
        reason = error.__cause__ or error  # MMEngine's own message lists the whole sys.path
        raise UserError(
            f'CONFIG: {path} needs a package that cannot be imported: {reason}. See requirements/.'
        ) from error
    if options:
        _merge_options(cfg, options)
    return cfg


def _merge_options(cfg: Config, options: Dict[str, Any]) -> None:
    """Merge ``--cfg-options``.

    Variables of the file that hold a path (``data_root``, ``stim_info``) were used before the options came: what begins
    with the old path begins with the new one afterwards.
    """
    variables = {key: cfg.get(key) for key in options if key.split('.')[0] not in SETTINGS}
    cfg.merge_from_dict(options)
    for key, old in variables.items():
        before = {name: cfg[name] for name in PATHS if cfg.get(name) is not None}
        after = before
        if isinstance(old, str) and ('/' in old or key == 'data_root'):
            after = _moved(before, old.rstrip('/'), str(options[key]).rstrip('/'))
        if after == before:
            name = key.split('.')[0]
            raise UserError(
                f'--cfg-options {key}: nothing but the config file reads {name}, so this changes nothing. Give the '
                'settings that the file sets from it.'
            )
        for name, part in after.items():
            cfg[name] = part


def _moved(node: Any, old: str, new: str) -> Any:
    """Replace the beginning of the paths in a config node that begin with ``old``."""
    if isinstance(node, dict):
        return {key: _moved(child, old, new) for key, child in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_moved(child, old, new) for child in node)
    if isinstance(node, str) and (node == old or node.startswith(f'{old}/')):
        return new + node[len(old) :]
    return node


def need_file(path: str, argument: str, remedy: str) -> None:
    """Raise FileNotFoundError if a local file does not exist."""
    if '://' not in path and not osp.isfile(path):
        raise FileNotFoundError(f'{argument}: there is no file {path!r} (looked from {os.getcwd()}). {remedy}')


def set_work_dir(cfg: Config, config_path: str, work_dir: Optional[str]) -> None:
    """Choose the work folder: ``--work-dir``, else the config's ``work_dir``, else ``./work_dirs/<config name>``."""
    default = osp.join('./work_dirs', osp.splitext(osp.basename(config_path))[0])
    cfg.work_dir = work_dir or cfg.get('work_dir') or default


def set_loader_defaults(cfg: Config) -> None:
    """Complete the dataloaders.

    Persistent workers need workers, pinned memory needs an accelerator, and configs of MMPretrain leave to its tools
    what all dataloaders have in common.
    """
    for loader in filter(None, map(cfg.get, LOADERS)):
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
            loader.setdefault('pin_memory', True)
            loader.setdefault('persistent_workers', True)
        if loader.get('num_workers', 0) == 0:
            loader.persistent_workers = False
        if get_device() == 'cpu':
            loader.pin_memory = False


def enable_amp(cfg: Config, dtype: Optional[str] = None) -> None:
    """Train with mixed precision (``--amp``, ``--amp-dtype``).

    Args:
        cfg: The run's config.
        dtype: ``'bfloat16'``, whose range needs no scaled loss, or ``'float16'``; by default the config's, else
            bfloat16 where the card has it.

    Raises:
        UserError: There is no accelerator, or the config has an optimizer wrapper of another kind.
    """
    if get_device() == 'cpu':
        raise UserError('--amp: mixed precision needs a GPU and this machine shows none. Leave the flag out.')
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp: the config has optim_wrapper.type={wrapper.type!r}, not OptimWrapper. Leave it out.')
    # torch.cuda.is_bf16_supported counts cards that only emulate it
    modern = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    dtype = dtype or wrapper.get('dtype') or ('bfloat16' if modern else 'float16')
    scale = dict(enabled=False) if dtype == 'bfloat16' else wrapper.get('loss_scale', 'dynamic')
    wrapper.update(type='AmpOptimWrapper', dtype=dtype, loss_scale=scale)


def use_accelerator(cfg: Config) -> None:
    """Choose the optimizer's fused kernel on a GPU, which is faster and otherwise the same."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if get_device() == 'cuda' and optimizer.get('type') in ('Adam', 'AdamW', 'SGD'):
        optimizer.setdefault('fused', True)


def refuse_activation_checkpointing(cfg: Config) -> None:
    """Raise a UserError for MMEngine's ``activation_checkpointing``, under which a backbone gets no gradients.

    MMEngine uses reentrant checkpoints, and these give none to a module whose inputs, such as images, need none.
    """
    if cfg.get('activation_checkpointing'):
        raise UserError(
            f'activation_checkpointing={cfg.activation_checkpointing!r}: modules that take images or responses would '
            'not be trained. Use model.backbone.with_cp=True and model.fmri_encoder.with_cp=True.'
        )


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the batch size (``--auto-scale-lr``).

    Raises:
        UserError: The config does not say for which batch size its learning rate is.
    """
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size, the batch size that its learning rate '
            'is meant for. Add it.'
        )
    cfg.auto_scale_lr.enable = True
    # a step has the samples of all accumulated iterations, and MMEngine counts those of one
    cfg.auto_scale_lr.base_batch_size /= (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def check_batch_size(cfg: Config, processes: int) -> None:
    """Refuse batches that teach nothing, and say where a learning rate is meant for batches of another size.

    Raises:
        UserError: The contrastive loss would get a single image, which has no negatives.
    """
    each, scaling = cfg.train_dataloader.get('batch_size', 1), cfg.get('auto_scale_lr') or {}
    if each * processes == 1 and any('contrastive' in node for _, node in walk(cfg.get('model'), 'model')):
        raise UserError(
            'train_dataloader.batch_size=1: one image has no negatives, so L_con would be 0. Take at least 2.'
        )
    size, meant = each * processes * cfg.optim_wrapper.get('accumulative_counts', 1), scaling.get('base_batch_size')
    if meant and size != meant and not scaling.get('enable') and is_first_process():
        print(f'Steps are of {size} samples, and the learning rate is meant for {meant}: --auto-scale-lr scales it.')


def set_resume(cfg: Config, resume: Optional[str]) -> None:
    """Go on with a training (``--resume [PATH|auto]``).

    Args:
        cfg: The run's config, whose ``work_dir`` is set.
        resume: None for no resume; 'auto' for the checkpoint that ``last_checkpoint`` in the work folder names. Where
            there is none yet, training starts as it would without the flag, so that one command is right for the first
            start and for every later one.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
    """
    path = last_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    if path is not None:
        need_file(path, '--resume', 'Give a training checkpoint that is there: --resume PATH.')
        cfg.resume, cfg.load_from = True, path
    elif resume == 'auto' and is_first_process():
        print(f'--resume: {cfg.work_dir} has no checkpoint yet, so training starts from the beginning.')


def check_pretrained(cfg: Config) -> None:
    """Check that the weights that training starts from are there.

    Raises:
        FileNotFoundError: An ``init_cfg`` of the model names a local checkpoint that does not exist, or ``load_from``
            of an adaptation does.
        UserError: An adaptation has no ``load_from``.
    """
    if (cfg.get('model') or {}).get('train_maps_only'):
        remedy = 'Give a checkpoint of the pretraining: --cfg-options load_from=PATH.'
        if not cfg.get('load_from'):
            raise UserError(f'load_from is not set, and a model that was not trained cannot be adapted. {remedy}')
        need_file(cfg.load_from, 'load_from', remedy)
    for key, node in walk(cfg.get('model'), 'model'):
        if node.get('type') == 'Pretrained' and isinstance(node.get('checkpoint'), str):
            remedy = (
                f'Pretrain first (tools/train.py configs/nfn/…), name another file (--cfg-options {key}.checkpoint='
                f'PATH), or start from random weights (--cfg-options {key}=None).'
            )
            need_file(node['checkpoint'], f'{key}.checkpoint', remedy)


def check_data(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check that data are there, and open the files of :class:`~mmnfn.datasets.NSDDataset`.

    Args:
        cfg: The run's config.
        loaders: The dataloaders that the run uses.

    Raises:
        FileNotFoundError: A ``data_root`` does not exist.
        UserError: A file of NSDDataset cannot be used.
    """
    for key, node in (pair for name in loaders for pair in walk_datasets(cfg, name)):
        root = node.get('data_root')
        if root and '://' not in root and not node.get('backend_args') and not osp.exists(root):
            option = 'data_root' if cfg.get('data_root') == root else f'{key}.data_root'
            raise FileNotFoundError(
                f'{key}.data_root: there is no {root!r} (looked from {os.getcwd()}). Put the data there, or name '
                f'another place with --cfg-options {option}=PATH.'
            )
        if node.get('type') == 'mmnfn.NSDDataset':
            try:
                DATASETS.build({**node, 'lazy_init': True})
            except ValueError as error:
                raise UserError(str(error)) from error


def check_controls(cfg: Mapping, loaders: Tuple[str, ...], trained: Optional[Mapping] = None) -> None:
    """Refuse a test of other pairs, voxels or images than it would be taken for, and note subjects not trained on.

    Args:
        cfg: The run's config.
        loaders: The dataloaders of validation and test to check.
        trained: The config of the training, if that is another one.

    Raises:
        UserError: A control is where it does not belong, or training and test differ in one.
    """
    trained = cfg if trained is None else trained
    training = _brain_data(trained, 'train_dataloader')
    adapted = (trained.get('model') or {}).get('train_maps_only')  # the model knows people of its pretraining, too
    known = {name for _, node in training for name in subject_names(node['subjects'])}
    for key, dataset in (pair for loader in loaders for pair in _brain_data(cfg, loader)):
        if dataset.get('shuffle_pairs') is not None:
            raise UserError(
                f'{key}.shuffle_pairs={dataset["shuffle_pairs"]}: pairs that do not belong together score at chance, '
                'whatever the model has learned. The control is for train_dataloader.dataset alone.'
            )
        if not training and dataset.get('permute_rois') is not None:
            raise UserError(
                f'{key}.permute_rois={dataset["permute_rois"]}: metrics would have the names of ROIs that they are not '
                'of. The control is for pretraining.'
            )
        for source, node in training:
            for name, default in (('voxel_order', 'stored'), ('permute_rois', None), ('permute_positions', None)):
                if dataset.get(name, default) != node.get(name, default):
                    raise UserError(
                        f'{key}.{name} is {dataset.get(name, default)!r}, and the model was trained with '
                        f'{source}.{name}={node.get(name, default)!r}: it knows no other arrangement of the voxels. '
                        'Give both the same.'
                    )
            if node.get('split', 'train') != 'train' and dataset.get('split', 'train') != 'train':
                raise UserError(
                    f'{source}.split is {node["split"]!r}, which holds images that {key} tests on. Train on split '
                    "'train', or without validation and test (tools/train.py --no-validate)."
                )
        others = sorted(set(subject_names(dataset['subjects'])) - known)
        if known and others and not adapted and is_first_process():
            print(
                f'{key} has {", ".join(others)}, which train_dataloader has not: retrieval with their responses is at '
                'chance, and lowers the mean over subjects. configs/encoding tests on held-out subjects.'
            )


def _brain_data(cfg: Mapping, loader: str) -> List[Tuple[str, dict]]:
    """List the datasets of a dataloader that have subjects, with their keys."""
    return [(key, node) for key, node in walk_datasets(cfg, loader) if node.get('subjects') is not None]


def walk_datasets(cfg: Mapping, name: str) -> Iterator[Tuple[str, dict]]:
    """Yield every dict of a dataloader or evaluator with its dotted key, without those of pipelines."""
    return ((key, node) for key, node in walk(cfg.get(name), name) if '.pipeline' not in key)
