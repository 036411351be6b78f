"""COCO's annotation files as they are on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Union

from mmnfn.disk import full_disk_named
from mmnfn.json_file import load_json

from .files import existing


def read_coco_json(path: Union[str, Path], fields: Dict[str, str]) -> Dict[str, Any]:
    """Read an annotation file and check that it has the lists asked for.

    Args:
        path: The file.
        fields: Name of a list → the field with an image's id that each of its entries must have, e.g.
            ``{'images': 'id', 'annotations': 'image_id'}``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, or has no such list.
    """
    path = existing(Path(path), 'COCO annotation file', 'Download annotations_trainval2017.zip from cocodataset.org.')
    try:
        content = load_json(path)
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}. Download it again.') from error
    for name, field in fields.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f'{path} has no list {name!r}. Is it a COCO annotation file?')
        if any(not isinstance(entry, dict) or type(entry.get(field)) is not int for entry in entries):
            raise ValueError(
                f'{path}: an entry of {name!r} has no {field!r} that is a whole number. Is it a COCO annotation file?'
            )
    return content


def write_json(content: Any, path: Union[str, Path], overwrite: bool = False) -> Path:
    """Write JSON under a temporary name and rename it when complete; nothing is left after an error.

    Raises:
        ValueError: If the file exists and ``overwrite`` is false.
        NoRoom: The disk is full.
    """
    path = refuse_existing(path, overwrite)
    part = path.with_name(path.name + '.part')
    try:
        with full_disk_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, 'w', encoding='utf-8') as stream:
                stream.write(json.dumps(content))
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def refuse_existing(path: Union[str, Path], overwrite: bool) -> Path:
    """Return the path, or raise a ValueError if a file would be overwritten."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise ValueError(f'{path} exists. Move it away, or allow overwriting (--overwrite).')
    return path
