"""Publishing a trained model: weights without the optimizer, under a name that says what they are, with its papers."""

from __future__ import annotations

import hashlib
import io
import re
import time
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional

import torch
import yaml

from mmnfn.utils import atomic_write
from mmnfn.yaml_file import load_yaml

from .checkpoint_file import Checkpoint, read_checkpoint
from .config_nodes import dicts, literal_config
from .export import backbone_config, plain

DATA = dict(NSDDataset='Natural Scenes Dataset', CocoDataset='COCO', ADE20KDataset='ADE20K')
"""Class of a data set → its name."""
COLLECTION = dict(
    Name='NeuroFusionNet',
    Paper=dict(
        Title='NeuroFusionNet: cross-modal modeling from brain activity to visual understanding',
        URL='https://doi.org/10.3389/fncom.2025.1545971',
    ),
)


class Published(NamedTuple):
    """What publishing wrote.

    Attributes:
        weights: ``NAME_YYYYMMDD-sha8.pth``: ``state_dict`` and plain ``meta``, loadable with ``weights_only=True``.
        config: ``NAME.py``, the run's config as one file.
        index: ``metafile.yml`` of the folder, with an entry of this model.
    """

    weights: Path
    config: Path
    index: Path


def publish(path: str, out: str, name: Optional[str] = None, url: Optional[str] = None) -> Published:
    """Publish a training checkpoint into a folder that can be handed on.

    Args:
        path: Checkpoint written by ``tools/train.py``; nothing in it is run.
        out: Folder; other models in it stay, and one of the same name is replaced in its ``metafile.yml``.
        name: Of the model; None for the name of the checkpoint's folder, e.g. ``pretrain_nsd``.
        url: Where the folder will be on the web, for the entry's ``Weights``; None for a path beside the metafile.

    Returns:
        The files.

    Raises:
        FileNotFoundError, ValueError: There is no such checkpoint, it has no config, or the name will not do.
    """
    checkpoint = read_checkpoint(path)
    name = name or Path(path).resolve().parent.name
    if not re.fullmatch(r'[\w.+-]+', name):
        raise ValueError(f'--name: {name!r} is no name for a file. Use letters, digits, dots, hyphens and underscores.')
    text = checkpoint.meta.get('cfg')
    if not text:
        raise ValueError(
            f'CHECKPOINT: {path} does not say which config it is of (no meta.cfg). Give a checkpoint written by '
            'tools/train.py; backbone exports are ready to be handed on as they are.'
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / 'metafile.yml'
    entries = _read_index(index)
    meta = _meta(checkpoint, text)
    weights = _write_weights(checkpoint, meta, folder, name)
    config = folder / f'{name}.py'
    _write_text(config, text)
    models = [model for model in entries['Models'] if model['Name'] != name]
    models.append(_entry(name, config.name, weights.name if url is None else f'{url.rstrip("/")}/{weights.name}', meta))
    _write_text(index, yaml.safe_dump(dict(entries, Models=models), sort_keys=False))
    return Published(weights, config, index)


def _meta(checkpoint: Checkpoint, text: str) -> Dict[str, Any]:
    """Plain metadata: what training recorded, and when it was published."""
    known = {key: checkpoint.meta[key] for key in ('epoch', 'iter', 'seed') if key in checkpoint.meta}
    return plain(
        dict(
            known,
            config=text,
            backbone=backbone_config(literal_config(text)),
            trained=checkpoint.meta.get('time'),
            published=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            **checkpoint.meta.get('mmnfn', {}),
        )
    )


def _write_weights(checkpoint: Checkpoint, meta: Dict[str, Any], folder: Path, name: str) -> Path:
    """Write the weights under a name that has the digest of the file."""
    buffer = io.BytesIO()
    torch.save(dict(state_dict=checkpoint.state_dict, meta=meta), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    weights = folder / f'{name}_{time.strftime("%Y%m%d")}-{digest}.pth'
    with atomic_write(weights) as temporary:
        Path(temporary).write_bytes(buffer.getvalue())
    return weights


def _entry(name: str, config: str, weights: str, meta: Dict[str, Any]) -> Dict[str, Any]:
    """Entry of a model index, as mim and MMPretrain read it."""
    cfg = literal_config(meta['config'])
    metadata = {'Training Data': _training_data(cfg), 'Epochs': meta.get('epoch'), 'Seed': meta.get('seed')}
    if meta.get('subjects'):
        metadata['NSD Subjects'] = meta['subjects']
    metadata.update(_pretraining(cfg))
    if meta.get('revision'):
        metadata['Revision'] = meta['revision']
    return {
        'Name': name,
        **({'In Collection': COLLECTION['Name']} if 'NSD Subjects' in metadata else {}),
        'Metadata': {key: value for key, value in metadata.items() if value is not None},
        'Results': None,
        'Config': config,
        'Weights': weights,
    }


def _training_data(cfg: Mapping) -> Optional[str]:
    """What a config trains on; the type of its data set, without wrappers, where that has no better name."""
    kinds = [str(node['type']) for node in dicts(cfg.get('train_dataloader')) if 'Dataset' in str(node.get('type'))]
    names = [DATA[kind.split('.')[-1]] for kind in kinds if kind.split('.')[-1] in DATA]
    return (names[:1] or kinds[-1:] or [None])[0]


def _pretraining(cfg: Mapping) -> Dict[str, Any]:
    """Where the backbone of a downstream model is from, and whose brains it was trained with, as its file says."""
    init_cfg = backbone_config(cfg).get('init_cfg')
    path = init_cfg.get('checkpoint') if isinstance(init_cfg, Mapping) else None
    if not isinstance(path, str):
        return {}
    try:
        subjects = read_checkpoint(path).meta.get('subjects')
    except (FileNotFoundError, ValueError):  # elsewhere by now, or on the web
        subjects = None
    return {'Backbone': path, **({'NSD Subjects': plain(subjects)} if subjects else {})}


def _read_index(index: Path) -> Dict[str, Any]:
    if not index.is_file():
        return dict(Collections=[COLLECTION], Models=[])
    try:
        content = load_yaml(index)
        names = [model['Name'] for model in content['Models']]
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(
            f'{index} is no model index with Models that have a Name. Publish into another folder.'
        ) from error
    return content if names else dict(content, Models=[])


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        Path(temporary).write_text(text, encoding='utf-8')
