"""A model from its config and a checkpoint."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Union

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmnfn.engine.export import load_training_checkpoint
from mmnfn.engine.run_config import load_config

# Norms of stages that pretraining did not use are not in its checkpoint: see ``out_indices``.
UNUSED_NORMS = re.compile(r'backbone\.norm\d+\.(weight|bias)')


def get_model(
    config: Union[str, Path, Config],
    checkpoint: Union[str, Path, None] = None,
    device: Union[str, torch.device] = 'cpu',
) -> nn.Module:
    """Build the model of a config, load its weights, and put it into evaluation mode.

    Args:
        config: Config file or config, of any of the three libraries.
        checkpoint: Training checkpoint or exported backbone. Training checkpoints hold pickled objects besides tensors,
            so load only what you trust. None leaves the weights as the config initialises them.
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
    """Load weights and say what does not fit."""
    state = load_training_checkpoint(path)['state_dict']
    own = model.state_dict()
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if wrong:
        raise ValueError(
            f'checkpoint: {path} does not fit the config: {wrong[0]} is {tuple(state[wrong[0]].shape)} there and '
            f'{tuple(own[wrong[0]].shape)} here (and {len(wrong) - 1} more). Give the config it was trained with.'
        )
    missing = [key for key in own if key not in state and not UNUSED_NORMS.fullmatch(key)]
    if missing:
        raise ValueError(
            f'checkpoint: {path} lacks {len(missing)} of {len(own)} weights of {type(model).__name__}, {missing[0]} '
            f'among them; it has {", ".join(sorted({key.partition(".")[0] for key in state}))}. Give the config it was '
            'trained with.'
        )
    result = model.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
    if result.missing_keys:
        print_log(f'{path} has no {", ".join(result.missing_keys)}: stages that it was trained without.', 'current')
