"""Real photographs with COCO annotations as stimuli of the simulated world."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Tuple

import cv2
import numpy as np
from pycocotools.coco import COCO

from mmnfn.nsd.coco import read_instances

from .scenes import CLASSES, Instance, Scene

# Class of the simulated world that stands for a COCO category (or supercategory) in the tuning of voxels.
CATEGORY_CLASSES: Dict[str, str] = {
    'person': 'body',
    'vehicle': 'car',
    'animal': 'animal',
    'furniture': 'chair',
    'kitchen': 'cup',
    'food': 'cup',
    'sports': 'ball',
    'potted plant': 'tree',
    'bench': 'chair',
    'appliance': 'house',
    'stop sign': 'word',
    'book': 'word',
    'tv': 'word',
    'laptop': 'word',
    'keyboard': 'word',
    'cell phone': 'word',
    'parking meter': 'word',
}
OUTDOOR = {'vehicle', 'outdoor', 'animal', 'sports'}


class Photographs:
    """Cut annotated photographs to squares like NSD.

    COCO has no faces and no stuff. The upper fifth of a person stands for the face, and everything that is not
    annotated counts as sky and grass in images with outdoor categories, else as wall and floor. This is coarse, but
    good enough to drive simulated voxels with real images.

    Args:
        folder: Folder of the photographs.
        annotations: COCO instances file of at least two photographs, one for training and one to test.

    Raises:
        FileNotFoundError: If the folder, the file or an image is missing.
        ValueError: If the file is not a COCO instances file.
    """

    def __init__(self, folder: Path, annotations: Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f'--images: {folder} is no folder. Give the folder of the photographs.')
        self.coco = COCO()
        self.coco.dataset = read_instances(annotations)
        self.coco.createIndex()
        self.ids: List[int] = sorted(self.coco.imgs)

    def class_of(self, category_id: int) -> str:
        """Find the class of the simulated world that stands for a category; '' if there is none."""
        category = self.coco.cats[category_id]
        return CATEGORY_CLASSES.get(category['name'], CATEGORY_CLASSES.get(category.get('supercategory'), ''))

    def crops(
        self, shared: np.ndarray, rng: np.random.Generator
    ) -> List[Tuple[int, Tuple[float, float, float, float]]]:
        """Choose COCO id and crop box of every stimulus.

        If there are fewer photographs than stimuli, each is used in several random crops. All crops of a photograph
        are shared stimuli or none is, because the shared ones are the test images.

        Args:
            shared: (stimuli,) bool.
            rng: Source of the positions.

        Returns:
            Per stimulus the id, and the fractions to cut from top, bottom, left and right to leave a square.
        """
        count, number = len(self.ids), np.arange(len(shared))
        if count < len(shared):
            for_test = int(np.clip(round(count * shared.mean()), 1, count - 1))
            number[shared] = np.arange(shared.sum()) % for_test
            number[~shared] = for_test + np.arange((~shared).sum()) % (count - for_test)
        crops, used = [], set()
        for photograph in number.tolist():
            info = self.coco.imgs[self.ids[photograph]]
            height, width = info['height'], info['width']
            side = (rng.uniform(0.6, 1.0) if photograph in used else 1.0) * min(height, width)
            used.add(photograph)
            top, left = rng.uniform(0, height - side), rng.uniform(0, width - side)
            box = (top / height, 1 - (top + side) / height, left / width, 1 - (left + side) / width)
            crops.append((info['id'], tuple(max(0.0, float(b)) for b in box)))
        return crops

    def scene(self, coco_id: int, box: Tuple[float, float, float, float], size: int) -> Scene:
        """Make a scene of a crop; see :class:`Photographs` for what is guessed."""
        info = self.coco.imgs[coco_id]
        path = self.folder / info['file_name']
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise FileNotFoundError(f'--images: {path}, which the annotation file lists, cannot be read as an image.')
        height, width = image.shape[:2]
        rows = slice(int(round(box[0] * height)), int(round((1 - box[1]) * height)))
        columns = slice(int(round(box[2] * width)), int(round((1 - box[3]) * width)))

        def cut(array: np.ndarray, how: int) -> np.ndarray:
            return cv2.resize(np.ascontiguousarray(array[rows, columns]), (size, size), interpolation=how)

        annotations = self.coco.imgToAnns[coco_id]
        supers = {self.coco.cats[a['category_id']].get('supercategory') for a in annotations}
        stuff = ('sky', 'grass') if supers & OUTDOOR else ('wall', 'floor')
        semantic = np.empty((size, size), np.uint8)
        semantic[: size // 2], semantic[size // 2 :] = (CLASSES.index(name) for name in stuff)
        instances: List[Instance] = []
        for annotation in sorted(annotations, key=lambda a: -a['area']):
            name = self.class_of(annotation['category_id'])
            mask = cut(self.coco.annToMask(annotation), cv2.INTER_NEAREST).astype(bool)
            if not name or not mask.any():
                continue
            semantic[mask] = CLASSES.index(name)
            instances.append(Instance(name, mask))
            if name == 'body':
                ys = np.nonzero(mask.any(1))[0]
                face = mask.copy()
                face[ys[0] + max(1, len(ys) // 5) :] = False
                semantic[face] = CLASSES.index('face')
                instances.append(Instance('face', face))
        names = [i.name for i in instances]
        caption = 'A photograph of ' + (' and '.join(f'a {n}' for n in dict.fromkeys(names)) or 'a place') + '.'
        return Scene(cut(image, cv2.INTER_AREA)[..., ::-1].copy(), semantic, instances, stuff[0], [caption] * 5)
