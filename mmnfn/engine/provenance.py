"""Where a checkpoint comes from: data, code and versions."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from mmnfn.utils import listed, walk

LIBRARIES = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'mmnfn')


def provenance(cfg: Optional[Mapping], start: Optional[Mapping] = None) -> Dict[str, Any]:
    """Collect what the reader of a checkpoint wants to know and cannot see in its weights.

    Args:
        cfg: The run's config.
        start: The same of the checkpoint that the run has loaded.

    Returns:
        ``subjects`` and ``split`` of the training data ([] and None where it has none), ``versions`` of the libraries
        in use, and ``revision`` (:func:`source_revision`). Where ``train_maps_only`` adapts a model to new people,
        ``subjects`` and ``split`` are those of its pretraining, as far as ``start`` knows them, and ``adapted`` lists
        the data of the adaptations: ``subjects``, ``split`` and what limits them (``max_sessions``, ``indices``).
    """
    datasets = (node for _, node in walk((cfg or {}).get('train_dataloader')) if 'subjects' in node)
    dataset = next(datasets, {})
    versions = {
        name: str(sys.modules[name].__version__) for name in LIBRARIES if hasattr(sys.modules.get(name), '__version__')
    }
    data = dict(subjects=listed(dataset.get('subjects', [])), split=dataset.get('split'))
    if ((cfg or {}).get('model') or {}).get('train_maps_only'):
        own = {**data, **{key: dataset[key] for key in ('max_sessions', 'indices') if dataset.get(key) is not None}}
        start = start or {}
        data = {key: start[key] for key in data if key in start}
        data['adapted'] = [*(part for part in start.get('adapted', []) if part != own), own]
    return dict(data, versions=versions, revision=source_revision())


@lru_cache(maxsize=1)
def source_revision() -> Optional[str]:
    """Return the git revision of the checkout that mmnfn was imported from, with ``+changes`` if it is not clean.

    None where mmnfn is installed as a package, or without git.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return None
    try:
        revision, changes = (
            subprocess.run(
                ['git', '-C', str(root), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (['rev-parse', 'HEAD'], ['status', '--porcelain', '--untracked-files=no'])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ('+changes' if changes else '')
