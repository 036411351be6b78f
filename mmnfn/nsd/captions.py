"""COCO's captions of NSD's stimuli."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterable, List, Optional, Set, Union

from .coco_json import read_coco_json
from .design import COCO_SPLITS, read_stim_info

MAX_NAMED = 10


def captions_by_image(
    stim_info_file: Union[str, Path], annotation_dir: Union[str, Path], image_ids: Optional[Iterable[int]] = None
) -> Dict[int, List[str]]:
    """Captions of NSD's stimuli; the file of a COCO split is read only if one of the images comes from it.

    A stimulus is a square cut from the COCO image, so a caption may speak of something outside it.

    Args:
        stim_info_file: ``nsd_stim_info_merged.csv``.
        annotation_dir: Folder with ``captions_train2017.json`` and ``captions_val2017.json``, or with ``annotations/``
            that holds them.
        image_ids: 0-based 73k ids; all of the table if None.

    Returns:
        0-based 73k id → captions in the order of the file, without white space at their ends. The ids are in the
        order of ``image_ids``, or in that of the table.

    Raises:
        FileNotFoundError: If the table or a caption file that is needed is missing.
        ValueError: If a file is damaged, an id is not in the table, or an image has no caption.
    """
    table = read_stim_info(stim_info_file, ('nsdId', 'cocoId', 'cocoSplit')).set_index('nsdId')
    wanted = table.index.tolist() if image_ids is None else list(dict.fromkeys(int(i) for i in image_ids))
    known = set(table.index.tolist())
    unknown = [i for i in wanted if i not in known]
    if unknown:
        raise ValueError(
            f'image_ids: {_some(unknown)} not in {stim_info_file}, whose nsdId (0-based) go from {min(known)} to '
            f'{max(known)}.'
        )
    table = table.loc[wanted]
    captions: Dict[int, List[str]] = {}
    for split in COCO_SPLITS:
        coco_id = table.cocoId[table.cocoSplit == split].to_dict()
        if not coco_id:
            continue
        path = caption_file(annotation_dir, split)
        found = _read_captions(path, set(coco_id.values()))
        missing = [i for i in coco_id if coco_id[i] not in found]
        if missing:
            raise ValueError(
                f'{path} has no caption of {len(missing)} image(s), nsdId (0-based) {_some(missing)}, cocoId '
                f'{_some([coco_id[i] for i in missing])}. Is it the whole file of {split}?'
            )
        captions.update((i, list(found[coco_id[i]])) for i in coco_id)
    return {i: captions[i] for i in wanted}


def caption_file(annotation_dir: Union[str, Path], split: str) -> Path:
    """The caption file of a COCO split, or a FileNotFoundError that names where it was looked for."""
    folder = Path(annotation_dir)
    places = [folder / f'captions_{split}.json', folder / 'annotations' / f'captions_{split}.json']
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f'caption file of {split} is missing: neither {places[0]} nor {places[1]} exists. Download '
        'annotations_trainval2017.zip from cocodataset.org.'
    )


def _read_captions(path: Path, coco_ids: Set[int]) -> Dict[int, List[str]]:
    """COCO id → captions that are not empty, of the images asked for."""
    captions: Dict[int, List[str]] = {}
    for entry in read_coco_json(path, {'annotations': 'image_id'})['annotations']:
        if entry['image_id'] in coco_ids:
            text = entry.get('caption')
            if not isinstance(text, str):
                raise ValueError(
                    f'{path}: an annotation of image {entry["image_id"]} has no caption. Is it the file of captions?'
                )
            if text.strip():
                captions.setdefault(entry['image_id'], []).append(text.strip())
    return captions


def _some(ids: List[int]) -> str:
    """The first ids, for an error."""
    return ', '.join(map(str, ids[:MAX_NAMED])) + (', …' if len(ids) > MAX_NAMED else '')
