"""From a config file and command line flags to the config of a run, for all three libraries.

Everything that a user can get wrong is checked here, before a Runner exists: the errors name the file or the flag,
what was found and the way out.
"""

from __future__ import annotations

import importlib
import os
import os.path as osp
import platform
import sys
import tempfile
import zipfile
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from mmnfn.nsd.release import subject_names
from mmnfn.registry import DATASETS
from mmnfn.utils import DataError

from .cfg_options import (
    LOADERS,
    drop_replaced_init,
    is_first_of_machine,
    is_first_process,
    merge_options,
    walk,
    walk_dicts,
)
from .checkpoint import last_checkpoint, read_checkpoint
from .hooks.resume_epoch_hook import compare_training

LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg')


def report_error(program: str, error: Exception) -> int:
    """Print a user's error in one line and return the exit code 2.

    Of several processes, the first of each machine prints, for it may be the only machine that something is missing on.
    """
    if is_first_of_machine() or isinstance(error, DataError):  # which one process alone may have read
        where = '' if is_first_process() else f' (on {platform.node()})'
        print(f'{program}: error: {error}{where}', file=sys.stderr, flush=True)
    return 2


def load_config(path: str, options: Optional[Dict[str, Any]] = None) -> Config:
    """Read a config file and merge ``--cfg-options`` into it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no config, or the library that it is written for cannot be imported.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'CONFIG: there is no file {path!r} (looked from {os.getcwd()}). The shipped configs are under configs/.'
        )
    if not path.endswith(('.py', '.json', '.yaml', '.yml')):
        raise ValueError(
            f'CONFIG: {path!r} is no config file; expected .py, .json or .yaml. The order is CONFIG CHECKPOINT.'
        )
    try:
        cfg = Config.fromfile(path)
    except ImportError as error:
        while error.__cause__ or error.__context__:  # mmengine wraps it in the whole sys.path
            error = error.__cause__ or error.__context__
        raise ValueError(
            f'CONFIG: {path} needs a package that cannot be imported: {error}. Install the stack that it is '
            'written for (requirements/).'
        ) from error
    if options:
        merge_options(cfg, path, options)
    drop_replaced_init(cfg)
    require_library(cfg, path)
    return cfg


def require_library(cfg: Config, path: str) -> str:
    """Name of the library that a config is written for, after checking that it can be imported.

    mmengine swallows an ImportError of the library and reports "not in the registry" later.
    """
    scope = cfg.get('default_scope', 'mmengine')
    if scope in LIBRARIES:
        try:
            importlib.import_module(scope)
        except (ImportError, AssertionError) as error:  # AssertionError: their check of the mmcv version
            raise ValueError(
                f'CONFIG: {path} has default_scope={scope!r}, and {scope} cannot be imported: {error}. '
                'Install it as requirements/ says.'
            ) from error
    return scope


def set_work_dir(cfg: Config, config_path: str, work_dir: Optional[str] = None) -> None:
    """Work folder by priority: ``--work-dir``, the config's ``work_dir``, ``./work_dirs/<config name>``."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs', osp.splitext(osp.basename(config_path))[0])
    check_writable(osp.join(cfg.work_dir, 'log'), '--work-dir')


def check_writable(path: str, argument: str) -> None:
    """Raise ValueError for a file that could not be written when the run has ended; nothing is left."""
    folder = osp.dirname(osp.abspath(path))
    while not osp.exists(folder):
        folder = osp.dirname(folder)
    if osp.isdir(path):
        raise ValueError(f'{argument}: {path} is a folder. Name a file in it.')
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f'{argument}: {path} cannot be written, for nothing can be in {folder} ({error.strerror}). Name another '
            'place.'
        ) from error


def set_loader_defaults(cfg: Config) -> None:
    """No persistent workers where there are none, which PyTorch refuses; and what mmpretrain's own tools add to
    dataloaders that do not say it themselves."""
    for loader in filter(None, map(cfg.get, LOADERS)):
        if loader.get('num_workers') == 0:
            loader['persistent_workers'] = False
        if cfg.get('default_scope') != 'mmpretrain':
            continue
        loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
        loader.setdefault('pin_memory', get_device() != 'cpu')
        loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)


def enable_amp(cfg: Config, dtype: Optional[str] = None) -> None:
    """Follow ``--amp`` and ``--amp-dtype``: mixed precision on an accelerator.

    Args:
        cfg: The run's config.
        dtype: ``'bfloat16'``, whose range needs no scaled loss, or ``'float16'``; by default what the config says, else
            bfloat16 where the card has it.

    Raises:
        ValueError: There is no accelerator, or the optimizer wrapper is neither OptimWrapper nor AmpOptimWrapper.
    """
    if get_device() == 'cpu':
        raise ValueError(
            '--amp: mixed precision needs a GPU and this machine shows none. Leave the flag out to train in float32.'
        )
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            f'--amp: the config has optim_wrapper.type={wrapper!r}; only OptimWrapper can be turned into '
            'AmpOptimWrapper. Leave the flag out.'
        )
    dtype = dtype or cfg.optim_wrapper.get('dtype') or ('bfloat16' if _has_bfloat16() else 'float16')
    scale = dict(enabled=False) if dtype == 'bfloat16' else cfg.optim_wrapper.get('loss_scale', 'dynamic')
    cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype=dtype, loss_scale=scale)


def _has_bfloat16() -> bool:
    """Tell whether the card computes in bfloat16; torch also counts those that only emulate it."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def use_accelerator(cfg: Config) -> None:
    """Choose what is faster on an accelerator and the same elsewhere: the optimizer's fused kernel."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if get_device() == 'cuda' and optimizer.get('type') in ('Adam', 'AdamW', 'SGD'):
        optimizer.setdefault('fused', True)


def enable_compile(cfg: Config) -> None:
    """Follow ``--compile``: torch.compile for the backbone alone, whose inputs have one size.

    Raises:
        ValueError: The model has no backbone.
    """
    if 'backbone' not in (cfg.get('model') or {}):
        raise ValueError('--compile: the config has no model.backbone. Leave the flag out.')
    cfg.compile_backbone = True


def enable_auto_scale_lr(cfg: Config) -> None:
    """``--auto-scale-lr``: scale the learning rate by the batch size.

    Raises:
        ValueError: The config does not say for which batch size its learning rate is.
    """
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise ValueError(
            '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size. Add '
            'auto_scale_lr=dict(base_batch_size=…), the batch size its learning rate is meant for.'
        )
    cfg.auto_scale_lr.enable = True
    iterations = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    if iterations > 1:  # of one step; MMEngine compares with the samples of one iteration
        cfg.auto_scale_lr.base_batch_size /= iterations


def note_batch_size(cfg: Config, processes: int) -> None:
    """Say where a training's batches are not those that its learning rate is meant for, and nothing scales it."""
    scaling, loader = cfg.get('auto_scale_lr') or {}, cfg.get('train_dataloader') or {}
    meant, each = scaling.get('base_batch_size'), loader.get('batch_size')
    if not meant or not each or scaling.get('enable'):
        return
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    if processes * each * steps != meant and is_first_process():
        print(
            f'Batches are of {processes * each * steps} samples ({processes} process(es) x {each}'
            f'{f" x {steps} accumulated" if steps > 1 else ""}), and the learning rate is meant for {meant}: '
            '--auto-scale-lr scales it.'
        )


def check_batch_size(cfg: Config, processes: int) -> None:
    """Raise ValueError where batches of one sample teach nothing, or end in batch norm."""
    if (cfg.get('train_dataloader') or {}).get('batch_size') != 1:
        return
    for key, node in walk(cfg.get('model'), 'model'):
        if 'contrastive' in node and processes == 1:
            raise ValueError(
                'train_dataloader.batch_size=1: one image has no negatives to be told from, so L_con would be 0. Take '
                'batches of at least 2.'
            )
        alone = node.get('norm_cfg', {}).get('type') in ('BN', *(['SyncBN'] if processes == 1 else []))
        if alone and 1 in node.get('pool_scales', ()):
            raise ValueError(
                f'train_dataloader.batch_size=1: {key} pools an image to one value, and batch norm cannot normalise '
                f'one value. Take batches of at least 2, or leave 1 out of {key}.pool_scales.'
            )


def set_resume(cfg: Config, resume: Optional[str]) -> None:
    """``--resume [PATH|auto]``.

    Args:
        cfg: The run's config, whose ``work_dir`` is set.
        resume: None for no resume; 'auto' for the checkpoint that ``last_checkpoint`` in the work folder names. Where
            there is none yet, training starts as it would without the flag (and says so), ``load_from`` included: one
            command is right for the first start and for every later one.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: It is not whole.
    """
    if resume is None:
        return
    path = resume
    if resume == 'auto':
        path = last_checkpoint(cfg.work_dir)
        if path is None:
            if is_first_process():
                print(f'--resume: {cfg.work_dir} has no checkpoint yet, so training starts from the beginning.')
            return
    if not _is_remote(path):
        if not osp.isfile(path):
            named, remedy = '', 'Give a training checkpoint, or --resume alone for the newest one in the work folder.'
            if resume == 'auto':
                named = f' named by {osp.join(cfg.work_dir, "last_checkpoint")}'
                remedy = 'Give a training checkpoint that is there: --resume PATH.'
            raise FileNotFoundError(f'--resume: there is no file {path!r}{named} (looked from {os.getcwd()}). {remedy}')
        if not zipfile.is_zipfile(path):
            raise ValueError(f'--resume: {path} is not a whole checkpoint. Give an earlier one.')
    cfg.resume = True
    cfg.load_from = path


def check_resumed(cfg: Config) -> None:
    """Raise ResumeError where ``--resume`` names a local checkpoint of another training, before anything is written."""
    path = cfg.get('load_from')
    if cfg.get('resume') and path and not _is_remote(path):
        compare_training(read_checkpoint(path, '--resume').meta.get('cfg'), cfg, path)


def refuse_activation_checkpointing(cfg: Config) -> None:
    """MMEngine's ``activation_checkpointing``, not the ``with_cp`` of backbones and of the fMRI tower.

    Raises:
        ValueError: It is set. A module whose inputs need no gradient, as pictures and responses do not, would get none
            itself: MMEngine's checkpoints are the reentrant ones.
    """
    modules = cfg.get('activation_checkpointing')
    if modules:
        raise ValueError(
            f'activation_checkpointing={modules}: modules that pictures or responses go into would not be trained, '
            'and nothing would say so. Use model.backbone.with_cp=True and model.fmri_encoder.with_cp=True.'
        )


def disable_validation(cfg: Config) -> None:
    """``--no-validate``."""
    for name in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg[name] = None


def check_checkpoint(path: str, argument: str = 'CHECKPOINT') -> None:
    """Raise FileNotFoundError for a local checkpoint that does not exist."""
    if not _is_remote(path) and not osp.isfile(path):
        raise FileNotFoundError(
            f'{argument}: there is no file {path!r} (looked from {os.getcwd()}). Training writes '
            'checkpoints to its work folder, ./work_dirs/<config name>/.'
        )


def check_pretrained(cfg: Config) -> None:
    """Raise FileNotFoundError where an ``init_cfg`` of the model names a local checkpoint that does not exist."""
    for key, init_cfg in walk(cfg.get('model'), 'model'):
        if not isinstance(init_cfg, dict) or init_cfg.get('type') != 'Pretrained':
            continue
        path = init_cfg.get('checkpoint')
        if isinstance(path, str) and not _is_remote(path) and not osp.isfile(path):
            raise FileNotFoundError(
                f'{key}.checkpoint: there is no file {path!r} (looked from {os.getcwd()}). Pretrain first '
                f'(tools/train.py configs/nfn/…), or name another file with --cfg-options {key}.checkpoint=PATH, or '
                f'start from random weights with --cfg-options {key}=None.'
            )


def note_subjects(cfg: Config) -> None:
    """Say where validation or test has subjects that training has not: their responses were never learned."""
    subjects = {name: _subjects(cfg, name) for name in LOADERS}
    for name in LOADERS[1:]:
        others = sorted(subjects[name] - subjects['train_dataloader'])
        if others and subjects['train_dataloader'] and is_first_process():
            print(
                f'{name} has subject(s) {", ".join(others)}, which train_dataloader has not: retrieval with '
                'their responses is at chance, and in the mean over subjects. Name the same subjects for both '
                f'({name}.dataset.subjects); configs/encoding tests on held-out subjects.'
            )


def _subjects(cfg: Config, loader: str) -> set:
    return {name for _, node in _brain_data(cfg, loader) for name in subject_names(node['subjects'])}


def _brain_data(cfg: Mapping, loader: str) -> List[Tuple[str, dict]]:
    """The datasets of a dataloader that have subjects, with their keys."""
    return [(key, node) for key, node in walk_dicts(cfg.get(loader), loader) if node.get('subjects') is not None]


def check_controls(cfg: Mapping, loaders: Tuple[str, ...], trained: Optional[Mapping] = None) -> None:
    """Raise a ValueError where a test would be of other pairs, voxels or images than what it is taken for.

    Args:
        cfg: The run's config.
        loaders: The dataloaders to look at, of validation and test.
        trained: The config of the training, if that is another one.
    """
    training = _brain_data(cfg if trained is None else trained, 'train_dataloader')
    for key, dataset in (found for loader in loaders for found in _brain_data(cfg, loader)):
        if dataset.get('shuffle_pairs') is not None:
            raise ValueError(
                f'{key}.shuffle_pairs={dataset["shuffle_pairs"]}: pairs that do not belong together score at chance, '
                'whatever the model has learned. The control is for train_dataloader.dataset alone.'
            )
        if not training and dataset.get('permute_rois') is not None:
            raise ValueError(
                f'{key}.permute_rois={dataset["permute_rois"]}: figures would have the names of ROIs that they are not '
                'of. The control is for pretraining.'
            )
        for source, node in training:
            for name, default in (('voxel_order', 'stored'), ('permute_rois', None), ('permute_positions', None)):
                if dataset.get(name, default) != node.get(name, default):
                    raise ValueError(
                        f'{key}.{name} is {dataset.get(name, default)!r}, and the model was trained with '
                        f'{source}.{name}={node.get(name, default)!r}: it knows nothing of another arrangement of the '
                        'voxels. Give both the same.'
                    )
            if node.get('split', 'train') != 'train' and dataset.get('split', 'train') != 'train':
                raise ValueError(
                    f'{source}.split is {node["split"]!r}, which holds images that {key} tests on. Train on split '
                    "'train', or without validation and test (tools/train.py --no-validate)."
                )


def check_data(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Raise FileNotFoundError where a dataset's local ``data_root`` or annotation file does not exist, and open the
    files of :class:`~mmnfn.datasets.NSDDataset`, which raises what it raises.

    Args:
        cfg: The run's config.
        loaders: The dataloaders that the run uses.
    """
    for name in loaders:
        for key, dataset in walk_dicts(cfg.get(name), name):
            for transform in dataset.get('pipeline') or []:
                for argument in ('stim_info', 'annotation_dir'):  # of LoadCaption
                    path = transform.get(argument) if isinstance(transform, dict) else None
                    if isinstance(path, str) and not osp.exists(path):
                        raise FileNotFoundError(
                            f'{key}.pipeline, {argument}: there is no {path!r} (looked from '
                            f'{os.getcwd()}). Put it there, or change it in the config.'
                        )
            root, annotations = dataset.get('data_root'), dataset.get('ann_file')
            if not isinstance(root, str) or not root or _is_remote(root) or dataset.get('backend_args'):
                continue
            if not osp.exists(root):
                option = 'data_root' if cfg.get('data_root') == root else f'{key}.data_root'
                raise FileNotFoundError(
                    f'{key}.data_root: there is no {root!r} (looked from {os.getcwd()}). Put the data '
                    f'there, or name another place with --cfg-options {option}=PATH.'
                )
            if isinstance(annotations, str) and annotations and not osp.exists(osp.join(root, annotations)):
                raise FileNotFoundError(
                    f'{key}.ann_file: there is no {osp.join(root, annotations)!r} (looked from '
                    f'{os.getcwd()}). Is {root!r} the folder meant?'
                )
            if dataset.get('type') == 'mmnfn.NSDDataset':
                DATASETS.build({**dataset, 'lazy_init': True})


def _is_remote(path: str) -> bool:
    return '://' in path
