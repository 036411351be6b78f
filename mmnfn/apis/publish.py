"""Publish a trained model: weights without the optimizer, under a name that says what they are, with its papers."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import yaml

from mmnfn.engine.checkpoint import atomic_save, backbone_config, literal_config, plain, read_checkpoint
from mmnfn.utils import atomic_write, walk

DATA = dict(NSDDataset='Natural Scenes Dataset', CocoDataset='COCO', ADE20KDataset='ADE20K')
"""Class of a dataset → its name."""
COLLECTION = dict(
    Name='NeuroFusionNet',
    Paper=dict(
        Title='NeuroFusionNet: cross-modal modeling from brain activity to visual understanding',
        URL='https://doi.org/10.3389/fncom.2025.1545971',
    ),
)


def publish(path: str, out: str, name: Optional[str] = None) -> Tuple[Path, Path, Path]:
    """Publish a training checkpoint into a folder that can be handed on.

    Args:
        path: Checkpoint written by ``tools/train.py``; nothing in it is run.
        out: Folder; other models in it stay, and one of the same name is replaced in its ``metafile.yml``.
        name: The model's; None for the name of the checkpoint's folder, e.g. ``pretrain_nsd``.

    Returns:
        The weights, ``NAME_YYYYMMDD-sha8.pth``: ``state_dict`` and plain ``meta``, loadable with ``weights_only=True``;
        the run's config as one file, ``NAME.py``; the folder's ``metafile.yml``, with an entry of this model.

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
    cfg, index = literal_config(text), Path(out) / 'metafile.yml'
    entries = yaml.safe_load(index.read_text('utf-8')) if index.is_file() else dict(Collections=[COLLECTION], Models=[])
    known = {key: checkpoint.meta[key] for key in ('epoch', 'iter', 'seed') if key in checkpoint.meta}
    dates = dict(trained=checkpoint.meta.get('time'), published=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()))
    training = checkpoint.meta.get('mmnfn', {})
    meta = plain(dict(known, config=text, backbone=backbone_config(cfg), **dates, **training))

    temporary = Path(out) / f'{name}.pth'
    atomic_save(dict(state_dict=checkpoint.state_dict, meta=meta), temporary)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()[:8]
    weights = temporary.replace(temporary.with_name(f'{name}_{time.strftime("%Y%m%d")}-{digest}.pth'))
    config = Path(out) / f'{name}.py'
    with atomic_write(config) as file:
        file.write_text(text, 'utf-8')
    models = [model for model in entries['Models'] or [] if model['Name'] != name]
    models.append(_entry(name, config.name, weights.name, cfg, meta))
    with atomic_write(index) as file:
        file.write_text(yaml.safe_dump(dict(entries, Models=models), sort_keys=False), 'utf-8')
    return weights, config, index


def _entry(name: str, config: str, weights: str, cfg: Mapping, meta: Mapping) -> Dict[str, Any]:
    """Make the entry of a model index, as mim and MMPretrain read it."""
    kinds = [str(node.get('type')).split('.')[-1] for _, node in walk(cfg.get('train_dataloader'))]
    kinds = [kind for kind in reversed(kinds) if 'Dataset' in kind]  # the innermost, which is no wrapper, first
    data = next((DATA[kind] for kind in kinds if kind in DATA), kinds[0] if kinds else None)
    pretrained = next((node for _, node in walk(backbone_config(cfg).get('init_cfg')) if 'checkpoint' in node), {})
    subjects, backbone = meta.get('subjects'), pretrained.get('checkpoint')
    if not subjects and backbone and Path(backbone).is_file():  # whose brains the backbone was trained with
        subjects = plain(read_checkpoint(backbone).meta.get('subjects'))
    metadata = {
        'Training Data': data,
        'Epochs': meta.get('epoch'),
        'Seed': meta.get('seed'),
        'NSD Subjects': subjects or None,
        'Backbone': backbone,
        'Revision': meta.get('revision'),
    }
    return {
        'Name': name,
        **({'In Collection': COLLECTION['Name']} if subjects else {}),
        'Metadata': {key: value for key, value in metadata.items() if value is not None},
        'Results': None,
        'Config': config,
        'Weights': weights,
    }
