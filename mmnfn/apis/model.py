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


def get_model(
    config: Union[str, Path, Config],
    checkpoint: Union[str, Path, None] = None,
    device: Union[str, torch.device] = 'cpu',
) -> nn.Module:
    """Build the model of a config, load its weights, and put it into evaluation mode.

    Args:
        config: Config file or config, of any of the three libraries.
        checkpoint: Training checkpoint or exported backbone; nothing but its tensors is used. None leaves the
            weights as the config initialises them.
        device: Where the model is to be.

    Returns:
        The model, with the config as its attribute ``cfg``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The config or the checkpoint cannot be read, or the checkpoint lacks weights of the model, but for
            the norms of backbone stages that were not used when it was written.
    """
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
    own = model.state_dict()
    audit = audit_load('model', model, checkpoint, loaded=False)
    if audit.problem:
        raise ValueError(f'checkpoint: {audit.problem}')
    model.load_state_dict({key: value for key, value in checkpoint.state_dict.items() if key in own}, strict=False)
    print_log(audit_load('model', model, checkpoint).summary(), 'current')
