"""From a config file and command line flags to the config of a run, for all three libraries.

Everything that a user can get wrong is checked here, before a Runner exists: the errors name the file or the flag,
what was found and the way out.
"""

from __future__ import annotations

import importlib
import inspect
import os
import os.path as osp
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner

LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
# What a run reads of a config; other names are for the file itself, which has been read when an option comes.
SETTINGS = {*inspect.signature(Runner.__init__).parameters, 'auto_scale_lr', 'compile', 'custom_imports', 'data_root'}


class CfgOptions(DictAction):
    """``--cfg-options KEY=VALUE …`` that says which argument is not of this form."""

    def __call__(self, parser: Any, namespace: Any, values: List[str], option_string: Optional[str] = None) -> None:
        for value in values:
            if '=' not in value:
                parser.error(
                    f'{option_string}: {value!r} is not KEY=VALUE. CONFIG comes before {option_string}, and a value '
                    'has no white space.'
                )
        super().__call__(parser, namespace, values, option_string)


def report_error(program: str, error: Exception) -> int:
    """Print a user's error in one line, from one process of a run only, and return the exit code 2."""
    if _is_first_process():
        print(f'{program}: error: {error}', file=sys.stderr, flush=True)
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
        data_root = _data_root(cfg, path) if 'data_root' in options else None
        cfg.merge_from_dict(options)
        if data_root is not None:
            move_data(cfg, data_root, str(options['data_root']))
        for key in options:
            if key.split('.')[0] not in SETTINGS and _is_first_process():
                print(
                    f'--cfg-options {key}: nothing but the config file reads {key.split(".")[0]}, so this changes '
                    'nothing. Give the settings that it stands for, e.g. train_cfg.max_epochs for max_epochs.',
                    file=sys.stderr,
                )
    require_library(cfg, path)
    return cfg


def _data_root(cfg: Config, path: str) -> str:
    """The config's ``data_root``, or that of all its data sets where only they have one."""
    if isinstance(cfg.get('data_root'), str):
        return cfg.data_root
    nodes = (node for name in LOADERS for _, node in _walk_dicts(cfg.get(name), name))
    found = sorted({node.data_root for node in nodes if isinstance(node.get('data_root'), str)})
    if len(found) != 1:
        raise ValueError(
            f'--cfg-options data_root: {path} has {" and ".join(found) or "no data_root"} in its dataloaders. Set that '
            'of each data set, e.g. test_dataloader.dataset.data_root=FOLDER.'
        )
    return found[0]


def move_data(cfg: Config, old: str, new: str) -> None:
    """``--cfg-options data_root=NEW``: every path of the dataloaders and evaluators that begins with the config's
    ``data_root`` begins with NEW instead. A config's own ``data_root + '…'`` was computed before the option came."""
    old, new = old.rstrip('/'), new.rstrip('/')

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            for key, value in node.items():
                node[key] = moved(value)
        elif isinstance(node, (list, tuple)):
            return type(node)(moved(value) for value in node)
        elif isinstance(node, str) and (node == old or node.startswith(old + '/')):
            return new + node[len(old) :]
        return node

    for name in LOADERS + EVALUATORS:
        if cfg.get(name) is not None:
            cfg[name] = moved(cfg[name])


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


def set_loader_defaults(cfg: Config) -> None:
    """What mmpretrain's own tools add to dataloaders that do not say it themselves; nothing for mmdet and mmseg."""
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        loader.setdefault('collate_fn', ConfigDict(type='default_collate'))
        loader.setdefault('pin_memory', get_device() != 'cpu')
        loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)


def enable_amp(cfg: Config) -> None:
    """``--amp``: mixed precision on an accelerator.

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
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(cfg: Config) -> None:
    """``--auto-scale-lr``: scale the learning rate by the batch size.

    Raises:
        ValueError: The config does not say for which batch size its learning rate is.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError(
            '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size. Add '
            'auto_scale_lr=dict(base_batch_size=…), the batch size its learning rate is meant for.'
        )
    cfg.auto_scale_lr.enable = True


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
        last = Path(cfg.work_dir) / 'last_checkpoint'
        if not last.is_file():
            if _is_first_process():
                print(f'--resume: {cfg.work_dir} has no checkpoint yet, so training starts from the beginning.')
            return
        path = last.read_text().strip()
    if not _is_remote(path):
        if not osp.isfile(path):
            named = f' named by {last}' if resume == 'auto' else ''
            raise FileNotFoundError(
                f'--resume: there is no file {path!r}{named} (looked from {os.getcwd()}). Give a training '
                'checkpoint, or --resume alone for the newest one in the work folder.'
            )
        if not zipfile.is_zipfile(path):
            raise ValueError(f'--resume: {path} is not a whole checkpoint. Give an earlier one.')
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else resume


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
    for key, init_cfg in _walk(cfg.get('model'), 'model'):
        if not isinstance(init_cfg, dict) or init_cfg.get('type') != 'Pretrained':
            continue
        path = init_cfg.get('checkpoint')
        if isinstance(path, str) and not _is_remote(path) and not osp.isfile(path):
            raise FileNotFoundError(
                f'{key}.checkpoint: there is no file {path!r} (looked from {os.getcwd()}). Pretrain first '
                f'(tools/train.py configs/nfn/…), or name another file with --cfg-options {key}.checkpoint=PATH, or '
                f'start from random weights with --cfg-options {key}=None.'
            )


def check_data(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Raise FileNotFoundError where a dataset's local ``data_root`` or annotation file does not exist.

    Args:
        cfg: The run's config.
        loaders: The dataloaders that the run uses.
    """
    for name in loaders:
        for key, dataset in _walk_dicts(cfg.get(name), name):
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


def _is_first_process() -> bool:
    """Before the launcher is asked: by what torchrun, Slurm or Open MPI say of the process."""
    said = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next((rank for rank in said if rank), '0') == '0'


def _is_remote(path: str) -> bool:
    return '://' in path


def _walk(node: Any, key: str) -> Iterator[Tuple[str, Any]]:
    """Every dict below a config node, with its dotted key."""
    if isinstance(node, dict):
        yield key, node
        children: List[Tuple[Any, Any]] = list(node.items())
    elif isinstance(node, (list, tuple)):
        children = list(enumerate(node))
    else:
        return
    for name, child in children:
        yield from _walk(child, f'{key}.{name}')


def _walk_dicts(node: Any, key: str) -> Iterator[Tuple[str, dict]]:
    for name, child in _walk(node, key):
        if '.pipeline' not in name:
            yield name, child
