"""COCO's annotation files as they are on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Union

from mmnfn.disk import full_disk_named

from .release import existing

INSTANCE_FIELDS = dict(
    images=('id', 'file_name', 'width', 'height'),
    categories=('id', 'name'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
)


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
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}. Download it again.') from error
    for name, field in fields.items():
        if any(type(entry.get(field)) is not int for entry in _entries(content, name, path)):
            raise ValueError(
                f'{path}: an entry of {name!r} has no {field!r} that is a whole number. Is it a COCO annotation file?'
            )
    return content


def read_instances(path: Union[str, Path]) -> Dict[str, Any]:
    """Read an instances file, and check what MMDetection and pycocotools would take from it without a word.

    Args:
        path: The file.

    Returns:
        Its content; ``annotations`` is empty where the file has none, as lists of test images.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a field is missing, an id occurs twice, annotations name an unknown class or their image in
            another way than it is named, or the run lengths of a mask are not of the image's size.
    """
    content = read_coco_json(path, {'categories': 'id'})
    content.setdefault('annotations', [])
    for name, fields in INSTANCE_FIELDS.items():
        ids = set()
        for number, entry in enumerate(_entries(content, name, path)):
            missing = [field for field in fields if entry.get(field) in (None, [])]
            if missing:
                named = f'id {entry["id"]!r}' if 'id' in entry else f'number {number}'
                raise ValueError(f'{path}: {missing[0]!r} is missing in {name}, {named}. Add it.')
            if entry['id'] in ids:
                raise ValueError(f'{path}: two {name} have the id {entry["id"]!r}. Give each its own.')
            ids.add(entry['id'])
    images = {image['id']: image for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    kinds = {type(image_id) for image_id in images}
    for annotation in content['annotations']:
        named, image_id = f'{path}: annotation {annotation["id"]!r}', annotation['image_id']
        if annotation['category_id'] not in categories:
            raise ValueError(f'{named} has category_id {annotation["category_id"]!r}, which is none of categories.')
        if kinds - {type(image_id)}:
            raise ValueError(
                f'{named} has image_id {image_id!r}, and images have ids like {next(iter(images), None)!r}. Write all '
                'of them as numbers.'
            )
        image, mask = images.get(image_id), annotation.get('segmentation')
        if image and isinstance(mask, dict) and mask.get('size') != [image['height'], image['width']]:
            raise ValueError(
                f'{named} has a mask of {mask.get("size")} (height, width), and image {image_id!r} has '
                f'{[image["height"], image["width"]]}. Correct the one that is wrong.'
            )
    return content


def require_masks(content: Dict[str, Any], path: Union[str, Path]) -> None:
    """Raise a ValueError if an annotation of an instances file has no mask."""
    for annotation in content['annotations']:
        if not annotation.get('segmentation'):
            raise ValueError(
                f"{path}: 'segmentation' is missing in annotations, id {annotation['id']!r}. Where the file has boxes "
                "only, the metric needs metric='bbox', and LoadAnnotations with_mask=False."
            )


def _entries(content: Any, name: str, path: Union[str, Path]) -> List[dict]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f'{path} has no list {name!r}. Is it a COCO annotation file?')
    if not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: an entry of {name!r} has no 'id' or other field. Is it a COCO annotation file?")
    return entries


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
