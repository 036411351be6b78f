"""``--cfg-options``: what it changes, and what it would change in vain."""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any, Dict, Iterator, List, Optional, Tuple

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
# What a run reads of a config, here and in MMEngine; other names are for the file itself, which has been read when an
# option comes.
SETTINGS = {
    *inspect.signature(Runner.__init__).parameters,
    *('activation_checkpointing', 'auto_scale_lr', 'compile', 'data_root', 'efficient_conv_bn_eval'),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn', 'tta_model', 'tta_pipeline'),
}
# Of MMEngine's initialisations at random.
RANDOM_INIT = ('layer', 'mean', 'std', 'bias', 'a', 'b', 'gain', 'distribution', 'val', 'bias_prob', 'override')


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


def merge_options(cfg: Config, path: str, options: Dict[str, Any]) -> None:
    """Merge ``--cfg-options`` into a config; the paths that begin with its ``data_root`` move with that.

    Args:
        cfg: The config.
        path: Its file.
        options: Dotted key → value.

    Raises:
        ValueError: ``data_root`` is given, and nobody can tell what it is to replace.
    """
    data_root = _data_root(cfg, path) if 'data_root' in options else None
    cfg.merge_from_dict(options)
    if data_root is not None:
        move_data(cfg, data_root, str(options['data_root']))
    for key in options:
        if key.split('.')[0] not in SETTINGS and is_first_process():
            print(
                f'--cfg-options {key}: nothing but the config file reads {key.split(".")[0]}, so this changes '
                'nothing. Give the settings that it stands for, e.g. train_cfg.max_epochs for max_epochs.',
                file=sys.stderr,
            )


def drop_replaced_init(cfg: Config) -> None:
    """Where ``init_cfg`` loads weights, leave out what it has inherited from an initialisation at random.

    The child config or option that says what to load is merged with that, and MMEngine refuses the rest.
    """
    for _, node in walk(cfg.get('model'), 'model'):
        init_cfg = node.get('init_cfg')
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            for key in RANDOM_INIT:
                init_cfg.pop(key, None)


def _data_root(cfg: Config, path: str) -> str:
    """The config's ``data_root``, or that of all its data sets where only they have one."""
    if isinstance(cfg.get('data_root'), str):
        return cfg.data_root
    nodes = (node for name in LOADERS for _, node in walk_dicts(cfg.get(name), name))
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


def is_first_process() -> bool:
    """Before the launcher is asked: by what torchrun, Slurm or Open MPI say of the process."""
    return _is_first('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def is_first_of_machine() -> bool:
    """Likewise, of the processes of its machine."""
    return _is_first('LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK')


def _is_first(*names: str) -> bool:
    return next((os.environ[name] for name in names if os.environ.get(name)), '0') == '0'


def walk(node: Any, key: str) -> Iterator[Tuple[str, Any]]:
    """Every dict below a config node, with its dotted key."""
    if isinstance(node, dict):
        yield key, node
        children: List[Tuple[Any, Any]] = list(node.items())
    elif isinstance(node, (list, tuple)):
        children = list(enumerate(node))
    else:
        return
    for name, child in children:
        yield from walk(child, f'{key}.{name}')


def walk_dicts(node: Any, key: str) -> Iterator[Tuple[str, dict]]:
    """The same without pipelines."""
    for name, child in walk(node, key):
        if '.pipeline' not in name:
            yield name, child
