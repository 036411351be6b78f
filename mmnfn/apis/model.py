"""A model from its config and a checkpoint, or by the name that it was published under."""

from __future__ import annotations

import copy
import difflib
import hashlib
import re
from pathlib import Path
from typing import Tuple, Union

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS, DefaultScope
from modelindex.load_model_index import load as load_index
from torch import nn

import mmnfn
from mmnfn.engine.checkpoint import local_copy, read_checkpoint
from mmnfn.engine.load_audit import audit_load
from mmnfn.engine.run_config import load_config


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
        checkpoint: Training checkpoint or exported backbone. None leaves the weights as the config initialises them;
            with a name they are then the published ones.
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
    if isinstance(config, str) and re.fullmatch(r'[\w.+-]+', config) and not config.endswith(('.py', '.json', '.yaml')):
        config, published = find_model(config, index or shipped_index())
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


def shipped_index() -> Path:
    """Return the index that comes with mmnfn: in the wheel, or in the checkout."""
    package = Path(mmnfn.__file__).resolve().parent
    inside = package / '.mim' / 'model-index.yml'
    return inside if inside.is_file() else package.parent / 'model-index.yml'


def find_model(name: str, index: Union[str, Path]) -> Tuple[str, str]:
    """Find config and weights of a published model.

    Args:
        name: The model's.
        index: ``model-index.yml`` or ``metafile.yml``.

    Returns:
        Path of the config, and path of the weights; weights on the web are downloaded, and those whose name ends with a
        digest are compared with it.

    Raises:
        FileNotFoundError: There is no such index.
        ValueError: It has no such model, the model has no weights, or they are not those that the name says.
    """
    index = Path(index)
    if not index.is_file():
        raise FileNotFoundError(f'index: there is no model index {str(index)!r}.')
    models = {entry.name: entry for entry in load_index(str(index)).models}
    if name not in models:
        near = difflib.get_close_matches(name, models, 3, 0.3) or sorted(models)
        raise ValueError(f'there is no model {name!r} in {index}; it has {", ".join(near)}.')
    config, weights = str(index.parent / models[name].config), models[name].weights
    if not weights:
        raise ValueError(
            f'no weights of {name!r} have been published ({index}). Give its config and a checkpoint of your own: '
            f'get_model({config!r}, CHECKPOINT).'
        )
    path = Path(local_copy(weights) if '://' in weights else index.parent / weights)
    if not path.is_file():
        raise FileNotFoundError(f'{index} says that the weights of {name!r} are {weights}, which is not there.')
    digest = re.search(r'-([0-9a-f]{8})$', path.stem)
    if digest and hashlib.sha256(path.read_bytes()).hexdigest()[:8] != digest[1]:
        raise ValueError(f'{path} is damaged: its digest is not {digest[1]}. Download or copy it again.')
    return config, str(path)
