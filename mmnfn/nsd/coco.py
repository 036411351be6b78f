"""COCO beside NSD: captions of the stimuli, and COCO without the images that NSD's subjects saw.

Every stimulus of NSD is a square cut from an image of train2017 or val2017. COCO ids are unique over both and the same
in the splits of 2014, so an image is removed by its id from whichever file has it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Collection, Dict, List, Optional, Sequence, Union

import pandas as pd

from mmnfn.utils import atomic_write

from .design import COCO_SPLITS, read_stim_info
from .release import existing

DOWNLOAD = 'Download annotations_trainval2017.zip from cocodataset.org.'
MAKE_IDS = 'Make it with tools/coco_nsd_overlap.py STIM_INFO --ids FILE.'
INSTANCE_FIELDS = dict(
    images=('id', 'file_name', 'width', 'height'),
    categories=('id', 'name'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
)


def captions_by_image(stim_info_file: Union[str, Path], annotation_dir: Union[str, Path]) -> Dict[int, List[str]]:
    """Read the captions of NSD's stimuli.

    A stimulus is a square cut from the COCO image, so a caption may speak of something outside it.

    Args:
        stim_info_file: ``nsd_stim_info_merged.csv``.
        annotation_dir: Folder with ``captions_train2017.json`` and ``captions_val2017.json``, or with ``annotations/``
            that holds them.

    Returns:
        0-based 73k id → captions in the order of the file, without white space at their ends.

    Raises:
        FileNotFoundError: If the table or a caption file that is needed is missing.
        ValueError: If a file is damaged, or an image has no caption.
    """
    table = read_stim_info(stim_info_file, ('nsdId', 'cocoId', 'cocoSplit')).set_index('nsdId')
    captions: Dict[int, List[str]] = {}
    for split, rows in table.groupby('cocoSplit'):
        path = _caption_file(Path(annotation_dir), split)
        found: Dict[int, List[str]] = {i: [] for i in rows.cocoId}
        for entry in read_coco_json(path, {'annotations': 'image_id'})['annotations']:
            if not isinstance(entry.get('caption'), str):
                raise ValueError(
                    f'{path}: an annotation of image {entry["image_id"]} has no caption. Is it the file of captions?'
                )
            if entry['image_id'] in found and entry['caption'].strip():
                found[entry['image_id']].append(entry['caption'].strip())
        missing = rows[[not found[i] for i in rows.cocoId]]
        if len(missing):
            raise ValueError(
                f'{path} has no caption of {len(missing)} image(s), nsdId (0-based) {_some(missing.index)}, cocoId '
                f'{_some(missing.cocoId)}. Is it the whole file of {split}?'
            )
        captions.update((i, list(found[coco_id])) for i, coco_id in rows.cocoId.items())
    return captions


def _caption_file(folder: Path, split: str) -> Path:
    places = [folder / f'captions_{split}.json', folder / 'annotations' / f'captions_{split}.json']
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f'caption file of {split} is missing: neither {places[0]} nor {places[1]} exists. {DOWNLOAD}'
        )
    return path


def _some(ids: Sequence[int]) -> str:
    return ', '.join(map(str, list(ids)[:10])) + (', …' if len(ids) > 10 else '')


def nsd_coco_ids(stim_info_file: Union[str, Path], subjects: Optional[Sequence[str]] = None) -> Dict[str, List[int]]:
    """List the COCO ids that NSD used.

    Args:
        stim_info_file: ``nsd_stim_info_merged.csv``.
        subjects: Only the images that at least one of these subjects sees (all sessions planned for it),
            e.g. ``['subj01', 'subj02']``; all stimuli if None.

    Returns:
        ``'train2017'`` and ``'val2017'`` → ascending ids.

    Raises:
        FileNotFoundError, ValueError: For a missing or wrong table, or one without an image of a subject.
    """
    columns = [f'subject{int(subject[4:])}' for subject in subjects or ()]
    table = read_stim_info(stim_info_file, ['cocoId', 'cocoSplit', *columns])
    for subject, column in zip(subjects or (), columns):
        if not table[column].any():
            raise ValueError(f'{stim_info_file} names no image that {subject} sees. Choose other subjects.')
    if columns:
        table = table[table[columns].any(axis=1)]
    return {split: sorted(set(table.cocoId[table.cocoSplit == split].tolist())) for split in COCO_SPLITS}


def read_nsd_images(path: Union[str, Path]) -> Dict[str, List[int]]:
    """Read the ids that ``tools/coco_nsd_overlap.py --ids`` wrote, ``'train2017'`` and ``'val2017'`` → ids.

    Raises:
        FileNotFoundError, ValueError: There is no such file, or it holds something else.
    """
    content = _read_json(path, 'list of NSD images', MAKE_IDS)
    if not isinstance(content, dict) or set(content) != set(COCO_SPLITS):
        raise ValueError(f'{path} is no list of COCO images by split. {MAKE_IDS}')
    return content


def remove_nsd_images(
    files: Sequence[Union[str, Path]],
    image_ids: Collection[int],
    out: Optional[Union[str, Path]] = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Count the images of annotation files that NSD used, and write copies without them.

    Args:
        files: COCO annotation files (instances, captions, keypoints).
        image_ids: COCO ids to remove.
        out: Folder for ``<stem>_without_nsd.json``; counts only if None.
        overwrite: Overwrite copies that exist.

    Returns:
        A row per file with its name (``file``), its number of ``images``, those ``used by NSD`` and those ``left``, its
        ``annotations`` and ``annotations left``, and the path of the copy (``written``, None without ``out``).

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is no annotation file, a copy exists, or two files have the same stem.
    """
    paths, removed = [Path(file) for file in files], set(image_ids)
    copies = [out and refuse_existing(Path(out) / f'{path.stem}_without_nsd.json', overwrite) for path in paths]
    if out is not None and len(set(copies)) < len(copies):
        raise ValueError('annotations: two files of the same name would be written into one. Give each its own folder.')
    rows = []
    for path, copy in zip(paths, copies):
        content = read_coco_json(path, {'images': 'id', 'annotations': 'image_id'})
        images = [image for image in content['images'] if image['id'] not in removed]
        annotations = [entry for entry in content['annotations'] if entry['image_id'] not in removed]
        if copy is not None:
            write_json(dict(content, images=images, annotations=annotations), copy)
        count, used = len(content['images']), len(content['images']) - len(images)
        rows.append((path.name, count, used, len(images), len(content['annotations']), len(annotations), copy))
    columns = ('file', 'images', 'used by NSD', 'left', 'annotations', 'annotations left', 'written')
    return pd.DataFrame(rows, columns=columns)


def write_json(content: Any, path: Path) -> None:
    """Write a JSON file as a whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content), encoding='utf-8')


def refuse_existing(path: Union[str, Path], overwrite: bool) -> Path:
    """Return the path, or raise a ValueError if a file would be overwritten."""
    if Path(path).exists() and not overwrite:
        raise ValueError(f'{path} exists. Move it away, or allow overwriting (--overwrite).')
    return Path(path)


def read_coco_json(path: Union[str, Path], fields: Dict[str, str]) -> Dict[str, Any]:
    """Read an annotation file and check that it has the lists asked for.

    Args:
        path: The file.
        fields: Name of a list → the field with an id that each of its entries must have, e.g.
            ``{'images': 'id', 'annotations': 'image_id'}``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, or has no such list.
    """
    content = _read_json(path, 'COCO annotation file', DOWNLOAD)
    for name, field in fields.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f'{path} has no list {name!r} of entries. Is it a COCO annotation file?')
        if any(not isinstance(entry.get(field), int) for entry in entries):
            raise ValueError(f'{path}: an entry of {name!r} has no whole number {field!r}. Is it a COCO file?')
    return content


def _read_json(path: Union[str, Path], what: str, remedy: str) -> Any:
    path = existing(Path(path), what, remedy)
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}. {remedy}') from error


def read_instances(path: Union[str, Path]) -> Dict[str, Any]:
    """Read an instances file, and check what MMDetection and pycocotools would take from it without a word.

    Returns:
        Its content; ``annotations`` is empty where the file has none, as lists of test images.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a field is missing, an id occurs twice, annotations name an unknown class or their image in
            another way than it is named, or the run lengths of a mask are not of the image's size.
    """
    content = _read_json(path, 'COCO annotation file', DOWNLOAD)
    if not isinstance(content, dict) or not {'images', 'categories'} <= set(content):
        raise ValueError(f"{path} has no lists 'images' and 'categories'. Is it a COCO instances file?")
    content.setdefault('annotations', [])
    for name, fields in INSTANCE_FIELDS.items():
        ids = set()
        for number, entry in enumerate(content[name]):
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
                f'{named} has image_id {image_id!r}, and images have ids like {next(iter(images))!r}. Write all of '
                'them as numbers.'
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
