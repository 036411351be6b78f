"""Where the map of a category-selective ROI lies, compared with where its category is."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple, Union

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


def localization(
    predictions: Sequence[Mapping],
    roi_names: Sequence[str],
    categories: Mapping[str, Sequence[str]],
    masks: CategoryMasks,
) -> Dict[str, Tuple[float, int]]:
    """Compare the maps of ROIs with an even map: how much of them lies on categories.

    Args:
        predictions: With ``image_id`` and ``roi_maps`` (K, h, w), which sum to 1 over h and w, or are 0 where the
            subject lacks the ROI.
        roi_names: The K ROIs.
        categories: ROI → names of its categories.
        masks: Where they are.

    Returns:
        ROI → mass of its maps on the categories over that of an even map, both summed over the predictions whose image
        shows them, NaN if none does; and the number of these predictions.
    """
    masses: Dict[str, List[Tuple[float, float]]] = {roi: [] for roi in categories}
    for prediction in predictions:
        for roi, names in categories.items():
            heat = np.asarray(prediction['roi_maps'][list(roi_names).index(roi)])
            cover = masks.cover(int(prediction['image_id']), names, heat.shape)
            if heat.any() and cover.any():
                masses[roi].append((float((heat * cover).sum()), float(cover.mean())))
    sums = {roi: np.sum(pairs, axis=0) if pairs else (np.nan, np.nan) for roi, pairs in masses.items()}
    return {roi: (float(own / even), len(masses[roi])) for roi, (own, even) in sums.items()}


@METRICS.register_module()
class LocalizationMetric(GatheredMetric):
    """Score whether the maps of category-selective ROIs lie on their categories.

    ``<ROI>`` is the mass of the ROI's map on the pixels of its categories, over the mass that an even map has there
    (:func:`localization`): 1 if the map looks elsewhere as much as there. A map of an image counts once for each
    subject who has the ROI. ``images_<ROI>`` is their number.

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
        """Keep the maps of a batch."""
        geometry = data_batch['geometry']
        rows = [geometry.roi_names.index(roi) for roi in self.categories]
        for sample in data_samples:
            maps = sample['roi_maps'][rows].float().cpu().numpy()
            self.results.append(dict(subject=geometry.subject, image_id=int(sample['image_id']), roi_maps=maps))

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Compare all maps with an even one."""
        found = localization(results, tuple(self.categories), self.categories, self.masks)
        metrics = {roi: ratio for roi, (ratio, _) in found.items()}
        return {**metrics, **{f'images_{roi}': count for roi, (_, count) in found.items()}}
