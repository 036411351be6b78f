"""``--cfg-options``: what it changes, and what it would change in vain."""

from __future__ import annotations

import inspect
import os
import re
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmnfn.utils import walk

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
# What a run reads of a config, here and in MMEngine; other names are for the file itself, which has been read when an
# option comes.
SETTINGS = {
    *inspect.signature(Runner.__init__).parameters,
    *(
        'activation_checkpointing',
        'auto_scale_lr',
        'compile',
        'compile_backbone',
        'data_root',
        'efficient_conv_bn_eval',
    ),
    *('find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'sync_bn', 'tta_model', 'tta_pipeline'),
}
# Where a variable of the file may have been used for a path.
PATHS = (*LOADERS, *EVALUATORS, 'model', 'tta_model', 'tta_pipeline')
# Of MMEngine's initialisations at random.
RANDOM_INIT = ('layer', 'mean', 'std', 'bias', 'a', 'b', 'gain', 'distribution', 'val', 'bias_prob', 'override')


class CfgOptions(DictAction):
    """``--cfg-options KEY=VALUE …`` that says which argument is not of this form, and keeps the blanks in a text."""

    def __call__(self, parser: Any, namespace: Any, values: List[str], option_string: Optional[str] = None) -> None:
        for value in values:
            if '=' not in value:
                parser.error(
                    f'{option_string}: {value!r} is not KEY=VALUE. CONFIG comes before {option_string}, and a value '
                    'with blanks is in quotes: KEY="A VALUE".'
                )
        super().__call__(parser, namespace, values, option_string)

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        """As MMEngine, which removes all blanks; here only those beside the commas and brackets of a list."""
        kept = re.sub(r'(?<=[^\s,(\[]) +(?=[^\s,)\]])', lambda blanks: '\0' * len(blanks[0]), val)
        return replace_text(DictAction._parse_iterable(kept), lambda text: text.replace('\0', ' '))


def merge_options(cfg: Config, path: str, options: Dict[str, Any]) -> None:
    """Merge ``--cfg-options`` into a config.

    ``data_root`` and other variables of the file that hold a path, e.g. ``stim_info``, were used before the option
    came: the settings that begin with the old path begin with the new one.

    Args:
        cfg: The config.
        path: Its file.
        options: Dotted key → value.

    Raises:
        ValueError: An option would change nothing, or nobody can tell what ``data_root`` is to replace.
    """
    before = {key: _data_root(cfg, path) if key == 'data_root' else cfg.get(key) for key in options}
    cfg.merge_from_dict(options)
    for key, old in before.items():
        name = key.split('.')[0]
        if name in SETTINGS and name != 'data_root':
            continue
        is_path = isinstance(old, str) and (key == 'data_root' or '/' in old)
        if not is_path or not move_paths(cfg, old, str(options[key])):
            raise ValueError(
                f'--cfg-options {key}: nothing but the config file reads {name}, so this changes '
                f'nothing. Give the settings themselves{_settings(cfg, name)}.'
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


def move_paths(cfg: Config, old: str, new: str) -> int:
    """Let every path of the dataloaders, evaluators and models that begins with OLD begin with NEW; how many do."""
    old, new = old.rstrip('/'), new.rstrip('/')
    count = 0

    def moved(text: str) -> str:
        nonlocal count
        if text != old and not text.startswith(old + '/'):
            return text
        count += 1
        return new + text[len(old) :]

    for name in PATHS:
        if cfg.get(name) is not None:
            cfg[name] = replace_text(cfg[name], moved)
    return count


def replace_text(node: Any, change: Callable[[str], str]) -> Any:
    """A value with every text in it changed; dicts in place."""
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = replace_text(value, change)
    elif isinstance(node, (list, tuple)):
        return type(node)(replace_text(value, change) for value in node)
    elif isinstance(node, str):
        return change(node)
    return node


def _settings(cfg: Config, name: str) -> str:
    """Settings of the name of a variable, which is what it most likely stands for."""
    nodes = (pair for part in sorted(SETTINGS) for pair in walk(cfg.get(part), part))
    keys = [f'{key}.{name}' for key, node in nodes if name in node]
    return f': {", ".join(keys[:3])}' if keys else ''


def is_first_process() -> bool:
    """Before the launcher is asked: by what torchrun, Slurm or Open MPI say of the process."""
    return _is_first('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def is_first_of_machine() -> bool:
    """Likewise, of the processes of its machine."""
    return _is_first('LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK')


def _is_first(*names: str) -> bool:
    return next((os.environ[name] for name in names if os.environ.get(name)), '0') == '0'


def walk_dicts(node: Any, key: str) -> Iterator[Tuple[str, dict]]:
    """The same without pipelines."""
    for name, child in walk(node, key):
        if '.pipeline' not in name:
            yield name, child
