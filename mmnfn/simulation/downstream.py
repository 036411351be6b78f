"""Scenes for the downstream tasks, in the layouts of COCO and ADE20K."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, Iterable, List

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from .scenes import THING_CLASSES, Scene

CATEGORIES = [dict(id=i, name=name, supercategory=name) for i, name in enumerate(THING_CLASSES, 1)]


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> List[Dict]:
    """Annotate the instances of a scene, masks as polygons."""
    annotations = []
    for instance in scene.instances:
        contours, _ = cv2.findContours(instance.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        polygons = [c.reshape(-1).astype(float).tolist() for c in contours if len(c) >= 3]
        if not polygons:
            continue
        area = float(mask_utils.area(mask_utils.encode(np.asfortranarray(instance.mask, np.uint8))))
        x, y, w, h = cv2.boundingRect(instance.mask.astype(np.uint8))
        annotations.append(
            dict(
                id=first_id + len(annotations),
                image_id=image_id,
                category_id=THING_CLASSES.index(instance.name) + 1,
                segmentation=polygons,
                area=area,
                bbox=[float(x), float(y), float(w), float(h)],
                iscrowd=0,
            )
        )
    return annotations


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB image or a label map; unlike ``cv2.imwrite`` this raises an OSError if the disk is full."""
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image)[1])


class CocoWriter:
    """Collect COCO instances and captions, and write them at the end.

    Args:
        folder: Folder of the annotation files.
        split: Name of the split, e.g. ``'train2017'``.
    """

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = Path(folder), split
        self.images: List[Dict] = []
        self.instances: List[Dict] = []
        self.captions: List[Dict] = []

    def add(self, scene: Scene, image_id: int) -> None:
        """Add a scene under an image id."""
        size = scene.image.shape[0]
        self.images.append(dict(id=image_id, file_name=f'{image_id:012d}.jpg', width=size, height=size))
        self.instances += coco_annotations(scene, image_id, len(self.instances) + 1)
        self.captions += [
            dict(id=len(self.captions) + k, image_id=image_id, caption=c) for k, c in enumerate(scene.captions, 1)
        ]

    def close(self) -> None:
        """Write ``instances_<split>.json`` and ``captions_<split>.json``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        info = dict(description='mmnfn simulated scenes')
        for kind, entries in (('instances', self.instances), ('captions', self.captions)):
            content = dict(info=info, licenses=[], images=self.images, annotations=entries)
            if kind == 'instances':
                content['categories'] = CATEGORIES
            (self.folder / f'{kind}_{self.split}.json').write_text(json.dumps(content), encoding='utf-8')


def write_coco_split(root: Path, split: str, scenes: Iterable[Scene], first_image_id: int) -> None:
    """Write images and annotations of a split in COCO's layout."""
    writer = CocoWriter(root / 'annotations', split)
    (root / split).mkdir(parents=True, exist_ok=True)
    for image_id, scene in enumerate(scenes, first_image_id):
        writer.add(scene, image_id)
        write_image(root / split / f'{image_id:012d}.jpg', scene.image)
    writer.close()


def write_ade_split(root: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Write images and label maps of a split in ADE20K's layout: 0 unlabelled, k = class k − 1.

    Args:
        root: The folder ``ADEChallengeData2016``.
        split: ``'training'`` or ``'validation'``.
        scenes: Scenes to write.
    """
    for kind in ('images', 'annotations'):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    prefix = 'ADE_train' if split == 'training' else 'ADE_val'
    for number, scene in enumerate(scenes, 1):
        name = f'{prefix}_{number:08d}'
        write_image(root / 'images' / split / f'{name}.jpg', scene.image)
        write_image(root / 'annotations' / split / f'{name}.png', scene.semantic + 1)
