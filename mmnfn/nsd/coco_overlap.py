"""COCO without the images that NSD's subjects saw, for downstream training that shares no picture with the brain data.

COCO ids are unique over train2017 and val2017, and the splits of 2014 have the same ids: an image is removed by its id,
whichever file it stands in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Sequence, Union

from .coco_json import read_coco_json, refuse_existing, write_json
from .design import COCO_SPLITS, read_stim_info
from .release import existing


class Overlap(NamedTuple):
    """What an annotation file shares with NSD.

    Attributes:
        path: The annotation file.
        images: Images in it, and images_left: those that NSD did not use.
        annotations: Annotations in it, and annotations_left: those of the images that are left.
        written: The copy without them, or None.
    """

    path: Path
    images: int
    images_left: int
    annotations: int
    annotations_left: int
    written: Optional[Path]


def nsd_coco_ids(stim_info_file: Union[str, Path], subjects: Optional[Sequence[str]] = None) -> Dict[str, List[int]]:
    """COCO ids that NSD used.

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
    if subjects is not None:
        seen = table[columns] == 1
        unseen = [subject for subject, column in zip(subjects, columns) if not seen[column].any()]
        if unseen:
            raise ValueError(f'{stim_info_file} names no image that {", ".join(unseen)} sees. Choose other subjects.')
        table = table[seen.any(axis=1)]
    return {split: sorted(set(table.cocoId[table.cocoSplit == split].tolist())) for split in COCO_SPLITS}


def read_nsd_images(path: Union[str, Path]) -> Dict[str, List[int]]:
    """Read what ``tools/coco_nsd_overlap.py --ids`` wrote.

    Returns:
        ``'train2017'`` and ``'val2017'`` → ids.

    Raises:
        FileNotFoundError, ValueError: There is no such file, or it holds something else.
    """
    path = existing(Path(path), 'list of NSD images', 'Make it with tools/coco_nsd_overlap.py STIM_INFO --ids FILE.')
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}. Make it again.') from error
    if (
        not isinstance(content, dict)
        or sorted(content) != sorted(COCO_SPLITS)
        or not all(isinstance(ids, list) and all(type(i) is int for i in ids) for ids in content.values())
    ):
        raise ValueError(
            f'{path} is no list of COCO images by split. Make it with tools/coco_nsd_overlap.py STIM_INFO --ids {path}.'
        )
    return content


def without_images(content: Dict[str, Any], image_ids: Collection[int]) -> Dict[str, Any]:
    """A copy of a COCO annotation file's content without some images and their annotations; all else stays."""
    removed = set(image_ids)
    return {
        **content,
        'images': [image for image in content['images'] if image['id'] not in removed],
        'annotations': [entry for entry in content['annotations'] if entry['image_id'] not in removed],
    }


def remove_nsd_images(
    files: Sequence[Union[str, Path]],
    image_ids: Collection[int],
    out: Optional[Union[str, Path]] = None,
    overwrite: bool = False,
) -> List[Overlap]:
    """Count the images of annotation files that NSD used, and write copies without them.

    Args:
        files: COCO annotation files (instances, captions, keypoints).
        image_ids: COCO ids to remove.
        out: Folder for ``<stem>_without_nsd.json``; counts only if None.
        overwrite: Whether existing copies may be overwritten.

    Returns:
        One entry per file, in their order.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is no annotation file, a copy exists, or two files have the same stem.
    """
    paths = [Path(file) for file in files]
    copies: List[Optional[Path]] = [None] * len(paths)
    if out is not None:
        copies = [refuse_existing(Path(out) / f'{path.stem}_without_nsd.json', overwrite) for path in paths]
        twice = sorted({copy.name for copy in copies if copies.count(copy) > 1})
        if twice:
            raise ValueError(
                f'annotations: two files would be written as {twice[0]}. Write them into different folders.'
            )
    results = []
    for path, copy in zip(paths, copies):
        content = read_coco_json(path, {'images': 'id', 'annotations': 'image_id'})
        rest = without_images(content, image_ids)
        if copy is not None:
            write_json(rest, copy, overwrite)
        counts = {name: (len(content[name]), len(rest[name])) for name in ('images', 'annotations')}
        results.append(Overlap(path, *counts['images'], *counts['annotations'], copy))
    return results


def overlap_table(ids: Dict[str, List[int]], results: Sequence[Overlap]) -> str:
    """The counts, as lines for people."""
    counts = ', '.join(f'{len(found)} of {split}' for split, found in ids.items())
    lines = [f'images used by NSD: {sum(map(len, ids.values()))} ({counts})']
    if results:
        cells = [('file', 'images', 'used by NSD', 'remaining', 'annotations', 'remaining')]
        cells += [
            (r.path.name, r.images, r.images - r.images_left, r.images_left, r.annotations, r.annotations_left)
            for r in results
        ]
        widths = [max(len(str(cell)) for cell in column) for column in zip(*cells)]
        for name, *numbers in cells:
            lines.append('  '.join([name.ljust(widths[0]), *(str(n).rjust(w) for n, w in zip(numbers, widths[1:]))]))
    return '\n'.join(lines)
