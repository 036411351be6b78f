"""Where the map of a category-selective ROI lies, compared with where its category is."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Union

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from mmnfn.nsd.coco import read_instances
from mmnfn.nsd.design import read_stim_info
from mmnfn.registry import METRICS
from mmnfn.utils import listed

from .gathered_metric import GatheredMetric


class CategoryMasks:
    """Read where the categories of COCO are in NSD's stimuli.

    Args:
        stim_info: ``nsd_stim_info_merged.csv``.
        annotation_dir: Folder with ``instances_train2017.json`` and ``instances_val2017.json``, or with
            ``annotations/`` that holds them.

    Raises:
        FileNotFoundError, ValueError: If a file is missing or damaged.
    """

    def __init__(self, stim_info: Union[str, Path], annotation_dir: Union[str, Path]):
        columns = ('nsdId', 'cocoId', 'cocoSplit', 'cropBox')
        self.table = read_stim_info(stim_info, columns).set_index('nsdId')
        folder = Path(annotation_dir)
        folder = folder / 'annotations' if (folder / 'annotations').is_dir() else folder
        self.sizes, self.annotations, self.categories = {}, defaultdict(list), {}
        wanted = set(self.table.cocoId)
        for split in self.table.cocoSplit.unique():
            content = read_instances(folder / f'instances_{split}.json')
            self.categories.update((entry['name'], entry['id']) for entry in content['categories'])
            self.sizes.update((entry['id'], (entry['height'], entry['width'])) for entry in content['images'])
            for entry in content['annotations']:
                if entry['image_id'] in wanted:
                    self.annotations[entry['image_id']].append(entry)

    def cover(self, image_id: int, categories: Sequence[str], size: Sequence[int]) -> np.ndarray:
        """Compute the share of each of h × w cells of a stimulus that categories cover.

        Args:
            image_id: 0-based 73k id.
            categories: Their names.
            size: h and w.

        Returns:
            (h, w) from 0 to 1.
        """
        row = self.table.loc[image_id]
        height, width = self.sizes[row.cocoId]
        wanted, mask = [self.categories[name] for name in categories], np.zeros((height, width), bool)
        for entry in self.annotations[row.cocoId]:
            if entry['category_id'] in wanted:
                shape = entry['segmentation']
                if not isinstance(shape, dict):
                    shape = mask_utils.merge(mask_utils.frPyObjects(shape, height, width))
                elif isinstance(shape['counts'], list):
                    shape = mask_utils.frPyObjects(shape, height, width)
                mask |= mask_utils.decode(shape).astype(bool)
        top, bottom, left, right = (float(part) for part in row.cropBox.strip('()').split(','))
        rows = slice(round(top * height), height - round(bottom * height))
        columns = slice(round(left * width), width - round(right * width))
        return cv2.resize(mask[rows, columns].astype(np.float32), tuple(size)[::-1], interpolation=cv2.INTER_AREA)


@METRICS.register_module()
class LocalizationMetric(GatheredMetric):
    """Score whether the maps of category-selective ROIs lie on their categories.

    ``<ROI>`` is the mass of the ROI's map on the pixels of its categories, over the mass that an even map has there,
    both summed over the test images that show them: 1 if the map looks elsewhere as much as there. A map of an image
    counts once for each subject who has the ROI. ``images_<ROI>`` is their number.

    Args:
        categories: ROI → name or names of its COCO categories, e.g. ``{'floc-bodies': 'person'}``.
        stim_info: ``nsd_stim_info_merged.csv``.
        annotation_dir: Folder with COCO's instances files of 2017.
        **kwargs: See :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        FileNotFoundError, ValueError: If a file is missing or damaged, or a category is not among COCO's.
    """

    default_prefix = 'localization'

    def __init__(
        self, categories: Mapping[str, Union[str, Sequence[str]]], stim_info: str, annotation_dir: str, **kwargs
    ):
        super().__init__(**kwargs)
        self.categories = {roi: tuple(listed(names)) for roi, names in categories.items()}
        self.masks = CategoryMasks(stim_info, annotation_dir)
        unknown = sorted({name for names in self.categories.values() for name in names} - set(self.masks.categories))
        if unknown:
            raise ValueError(
                f'categories names {unknown[0]!r}, but {annotation_dir} has {", ".join(sorted(self.masks.categories))}.'
            )

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the mass of each map, and of an even one, on the category."""
        geometry = data_batch['geometry']
        for sample in data_samples:
            image_id, found = int(sample['image_id']), {}
            for number, roi in enumerate(geometry.roi_names):
                if roi in self.categories and geometry.roi_sizes[number]:
                    heat = sample['roi_maps'][number].float().cpu().numpy()
                    cover = self.masks.cover(image_id, self.categories[roi], heat.shape)
                    if cover.any():
                        found[roi] = float((heat * cover).sum()), float(cover.mean())
            self.results.append(dict(subject=geometry.subject, image_id=image_id, found=found))

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Sum over images and subjects."""
        metrics: Dict[str, float] = {}
        for roi in self.categories:
            masses = np.asarray([result['found'][roi] for result in results if roi in result['found']]).reshape(-1, 2)
            metrics[roi] = float(masses[:, 0].sum() / masses[:, 1].sum()) if len(masses) else float('nan')
            metrics[f'images_{roi}'] = len(masses)
        return metrics
