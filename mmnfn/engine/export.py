"""Backbone exports: ``backbone.*`` weights and plain metadata in one small file.

An export is ``{'state_dict': {'backbone.…': tensor}, 'meta': {…}}`` with tensors on the CPU and metadata made of str,
int, float, bool, None, list and dict only, so ``torch.load(path, weights_only=True)`` reads it. MMPretrain,
MMDetection and MMSegmentation load it with ``init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.')``.
"""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping, Optional

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from .checkpoint_file import read_checkpoint
from .config_nodes import dicts, literal_config
from .provenance import provenance
from .whole_file import save_whole

PREFIX = 'backbone.'


def backbone_state(
    state_dict: Mapping[str, Tensor], prefix: str = PREFIX, source: str = 'the model'
) -> Dict[str, Tensor]:
    """The backbone's part of a model's state dict, copied to the CPU, under ``backbone.*`` keys.

    Args:
        state_dict: State dict of a whole model.
        prefix: Where the backbone is in it, '' if it is all of it. Keys become ``backbone.`` + what follows the prefix.
        source: What the state dict is of, for the error.

    Raises:
        ValueError: No key begins with the prefix.
    """
    prefix = prefix if prefix.endswith('.') or not prefix else prefix + '.'
    exported = {
        PREFIX + key[len(prefix) :]: value.detach().cpu().clone()
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }
    if not exported:
        found = sorted({key.partition('.')[0] for key in state_dict})
        raise ValueError(
            f'prefix: {source} has no weights under {prefix!r}; its weights begin with {", ".join(found)}. '
            'Give the prefix of the backbone.'
        )
    return exported


def plain(value: Any) -> Any:
    """A value as str, int, float, bool, None, list and dict only; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(child) for child in value]
    if hasattr(value, 'tolist'):
        return plain(value.tolist())
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)


def backbone_config(cfg: Optional[Mapping]) -> Dict[str, Any]:
    """The first ``backbone`` dict of a config's model, also inside a wrapping model; {} where there is none."""
    model = (cfg or {}).get('model')
    return next((node['backbone'] for node in dicts(model) if isinstance(node.get('backbone'), Mapping)), {})


def backbone_meta(cfg: Optional[Mapping] = None, **fields: Any) -> Dict[str, Any]:
    """Metadata of an export.

    Args:
        cfg: The run's config: gives the backbone's type and arguments, the subjects and the config text.
        fields: More entries, e.g. ``epoch``, ``iter``, ``seed``.

    Returns:
        ``backbone`` (type and arguments), ``time`` (UTC, ISO 8601), ``config`` (text), what :func:`provenance` gives,
        and ``fields``, which come before these.
    """
    backbone = {key: value for key, value in backbone_config(cfg).items() if key != 'init_cfg'}
    return plain(
        dict(
            dict(
                backbone=backbone,
                time=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
                config=getattr(cfg, 'pretty_text', ''),
                **provenance(cfg),
            ),
            **fields,
        )
    )


def save_export(state_dict: Dict[str, Tensor], meta: Dict[str, Any], *paths: str) -> None:
    """Write one export to one or more paths.

    A reader finds the old file or the whole new one.
    """
    save_whole(dict(state_dict=state_dict, meta=meta), *paths)


def export_checkpoint(path: str, out: str, prefix: str = PREFIX) -> Dict[str, Any]:
    """Export the backbone of a training checkpoint.

    Args:
        path: Checkpoint written by a Runner.
        out: The export.
        prefix: Where the backbone is in the model.

    Returns:
        The metadata written.
    """
    checkpoint = read_checkpoint(path)
    meta = checkpoint.meta
    text = meta.get('cfg') or ''
    known = {key: meta.get(key) for key in ('epoch', 'iter', 'seed')}
    written = backbone_meta(literal_config(text), config=text, **known, **meta.get('mmnfn', {}))
    save_export(backbone_state(checkpoint.state_dict, prefix, path), written, out)
    return written


def export_random(cfg: Config, out: str, seed: int = 0) -> Dict[str, Any]:
    """Write the backbone of a config with random weights, as every comparison's baseline.

    Args:
        cfg: A config whose model has a ``backbone``; its ``init_cfg`` is left out if it names a checkpoint.
        out: The export.
        seed: Seed of torch's generator; the generator's state is restored afterwards.

    Returns:
        The metadata written.

    Raises:
        ValueError: The config's model has no backbone.
    """
    backbone = dict(backbone_config(cfg))
    if not backbone:
        raise ValueError(f'--random: the model of {cfg.filename} has no backbone. Give a config with model.backbone.')
    if isinstance(backbone.get('init_cfg'), Mapping) and backbone['init_cfg'].get('type') == 'Pretrained':
        backbone.pop('init_cfg')
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        torch.manual_seed(seed)
        model = MODELS.build(backbone)
        model.init_weights()
    meta = backbone_meta(cfg, epoch=0, iter=0, seed=seed, subjects=[], split=None)
    save_export({PREFIX + key: value.detach().cpu().clone() for key, value in model.state_dict().items()}, meta, out)
    return meta
