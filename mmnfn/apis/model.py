"""A model from its config and a checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Union

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmnfn.engine.checkpoint_file import read_checkpoint
from mmnfn.engine.load_audit import audit_load
from mmnfn.engine.run_config import load_config

from .model_index import find_model, is_name


def get_model(
    config: Union[str, Path, Config],
    checkpoint: Union[str, Path, None] = None,
    device: Union[str, torch.device] = 'cpu',
    index: Union[str, Path, None] = None,
) -> nn.Module:
    """Build the model of a config, load its weights, and put it into evaluation mode.

    Args:
        config: Config file or config, of any of the three libraries; or the name of a published model, whose config and
            weights are then those of its entry in the model index. Configs are Python, and are run.
        checkpoint: Training checkpoint or exported backbone; nothing but its tensors is used. None leaves the
            weights as the config initialises them; those of a name are then the published ones.
        device: Where the model is to be.
        index: Model index to look names up in, e.g. the ``metafile.yml`` of a folder that
            ``tools/model_converters/publish_model.py`` filled; None for the one that comes with mmnfn.

    Returns:
        The model, with the config as its attribute ``cfg``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no model of that name, it has no weights, the config or the checkpoint cannot be read, or
            the checkpoint lacks weights of the model, but for the norms of backbone stages that were not used when it
            was written.
    """
    if isinstance(config, str) and is_name(config):
        config, published = find_model(config, index)
        checkpoint = checkpoint or published
    cfg = load_config(str(config)) if isinstance(config, (str, Path)) else copy.deepcopy(config)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        model = MODELS.build(cfg.model)
        if checkpoint is None:
            model.init_weights()
        else:
            _load(model, str(checkpoint))
    model.cfg = cfg
    return model.to(device).eval()


def _load(model: nn.Module, path: str) -> None:
    """Load weights, all of them or none."""
    checkpoint = read_checkpoint(path, 'checkpoint')
    for loaded in (False, True):
        audit = audit_load('model', model, checkpoint, loaded=loaded)
        if audit.problem:
            raise ValueError(f'checkpoint: {audit.problem}')
        if not loaded:
            weights = {row.key: checkpoint.state_dict[row.source] for row in audit.rows if row.source}
            model.load_state_dict(weights, strict=False)
    print_log(audit.summary(), 'current')
