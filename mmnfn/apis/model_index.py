"""Models by name: what a model index says of them."""

from __future__ import annotations

import difflib
import hashlib
import re
from pathlib import Path
from typing import Dict, Iterator, Optional, Tuple, Union

import mmnfn
from mmnfn.engine.checkpoint_file import local_copy
from mmnfn.yaml_file import load_yaml


def is_name(text: str) -> bool:
    """Whether a text is the name of a model rather than the path of a config."""
    return re.fullmatch(r'[\w.+-]+', text) is not None and not text.endswith(('.py', '.json', '.yaml', '.yml'))


def shipped_index() -> Path:
    """The index that comes with mmnfn: in the wheel, or in the checkout."""
    package = Path(mmnfn.__file__).resolve().parent
    inside = package / '.mim' / 'model-index.yml'
    return inside if inside.is_file() else package.parent / 'model-index.yml'


def find_model(name: str, index: Union[str, Path, None] = None) -> Tuple[str, str]:
    """Config and weights of a model.

    Args:
        name: Of the model.
        index: ``model-index.yml`` or ``metafile.yml``; None for :func:`shipped_index`.

    Returns:
        Path of the config, and path of the weights; weights on the web are downloaded, and those whose name ends with a
        digest are compared with it.

    Raises:
        FileNotFoundError: There is no such index.
        ValueError: It has no such model, the model has no weights, or they are not those that the name says.
    """
    path = Path(index) if index is not None else shipped_index()
    if not path.is_file():
        raise FileNotFoundError(f'index: there is no model index {str(path)!r}.')
    models = {entry['Name']: (entry, root) for entry, root in _entries(path, path.parent, ())}
    if name not in models:
        near = difflib.get_close_matches(name, models, 3, 0.3) or sorted(models)
        raise ValueError(f'there is no model {name!r} in {path}; it has {", ".join(near)}.')
    entry, root = models[name]
    if 'Config' not in entry:
        raise ValueError(f'{name!r} has no Config in {path}.')
    weights = entry.get('Weights')
    if not weights:
        raise ValueError(
            f'no weights of {name!r} have been published ({path}). Give its config and a checkpoint of your own: '
            f'get_model({str(root / entry["Config"])!r}, CHECKPOINT).'
        )
    weights = local_copy(weights) if '://' in weights else str(root / weights)
    if weights is None or not Path(weights).is_file():
        raise FileNotFoundError(f'{path} says that the weights of {name!r} are {entry["Weights"]}, which is not there.')
    _check_digest(weights)
    return str(root / entry['Config']), weights


def _entries(path: Path, root: Path, above: Tuple[Path, ...]) -> Iterator[Tuple[Dict, Path]]:
    """Entries of an index and of those it imports, each with the folder that its paths start from."""
    try:
        content = load_yaml(path) or {}
        imports, models = (content.get(name) or [] for name in ('Import', 'Models'))
        if path in above or not all(isinstance(other, str) for other in imports):
            raise ValueError('it imports itself, or something that is no path')
        for entry in models:
            if not all(isinstance(entry.get(key, ''), str) for key in ('Name', 'Config')) or 'Name' not in entry:
                raise ValueError(f'its entry {str(entry):.100} has no Name or Config that is a text')
            if not isinstance(entry.get('Weights') or '', str):
                raise ValueError(f'Weights of {entry["Name"]} are no text')
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f'{path} is no model index: {error}') from error
    for other in imports:
        yield from _entries(root / other, root, (*above, path))
    for entry in models:
        yield entry, root


def _check_digest(path: str) -> None:
    said: Optional[re.Match] = re.search(r'-([0-9a-f]{8})\.pth$', path)
    if said is None:
        return
    found = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]
    if found != said[1]:
        raise ValueError(f'{path} is damaged: its digest is {found} and not {said[1]}. Download or copy it again.')
