"""Detection and instance segmentation on COCO, with and without the images that NSD's subjects saw."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump
from mmengine.logging import MMLogger, print_log
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmnfn.nsd.coco import read_instances, read_nsd_images, require_masks
from mmnfn.registry import METRICS
from mmnfn.utils import listed

IOU_TYPES = ('bbox', 'segm')
NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
"""MMDetection's names of the first six statistics of COCOeval."""


@METRICS.register_module()
class CocoNSDMetric(BaseMetric):
    """Compute pycocotools' APbox and APsegm on all tested images, and on those that are not NSD stimuli.

    NSD's stimuli are COCO images, many of them in val2017. A gain on all of val2017 may come from having seen them, a
    gain without them cannot. Keys begin with ``coco/`` for all images and with ``coco_without_nsd/`` for the rest:
    ``images`` (their number), and ``bbox_mAP``, ``bbox_mAP_50``, ``…_75``, ``…_s``, ``…_m``, ``…_l`` and the same for
    ``segm``, from 0 to 1, not rounded as by MMDetection, −1 if there is nothing to find.

    Labels are those of MMDetection's ``CocoDataset``: the dataset's classes in the order of the file's ``categories``.
    Only tested images count; the log says if the annotation file has more.

    Args:
        ann_file: COCO instances file of the tested images.
        nsd_images: JSON file with the ids of NSD's COCO images (``tools/coco_nsd_overlap.py STIM_INFO --ids FILE``).
            If it is None or does not exist (the log then says so), only all images are reported.
        metric: ``'bbox'``, ``'segm'`` or both.
        outfile_prefix: Write the results as ``PREFIX.bbox.json`` and ``PREFIX.segm.json``, in COCO's format.
        collect_device: ``'cpu'`` or ``'gpu'``, see :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        FileNotFoundError: There is no annotation file.
        ValueError: ``metric`` is unknown, ``nsd_images`` is not such a file, or the annotation file is not an instances
            file, lacks what the metric needs or, with ``nsd_images``, has image ids that are not COCO's.
    """

    def __init__(
        self,
        ann_file: str,
        nsd_images: Optional[str] = None,
        metric: Sequence[str] = IOU_TYPES,
        outfile_prefix: Optional[str] = None,
        collect_device: str = 'cpu',
    ):
        super().__init__(collect_device=collect_device, prefix='coco')
        self.prefix = None  # compute_metrics writes both prefixes itself
        self.ann_file, self.metrics, self.outfile_prefix = ann_file, listed(metric), outfile_prefix
        if not self.metrics or set(self.metrics) - set(IOU_TYPES):
            raise ValueError(f'metric must be some of {IOU_TYPES}, but got {metric!r}')
        if not Path(ann_file).is_file():
            raise FileNotFoundError(f'ann_file: there is no file {ann_file!r}. Give the COCO instances file.')
        content = read_instances(ann_file)
        if 'segm' in self.metrics:
            require_masks(content, ann_file)
        for number, annotation in enumerate(content['annotations'], 1):  # COCOeval reads the id 0 as no match
            annotation.update(id=number, iscrowd=annotation.get('iscrowd', 0))
        self.coco = _indexed(content)
        self.nsd_images = None
        if nsd_images is not None and Path(nsd_images).is_file():
            self.nsd_images = {i for ids in read_nsd_images(nsd_images).values() for i in ids}
            for image_id in self.coco.imgs:
                if not str(image_id).isdigit():
                    raise ValueError(
                        f'nsd_images: {ann_file} has an image of id {image_id!r}, which is not an id of COCO. Leave '
                        'nsd_images out.'
                    )
        elif nsd_images is not None:
            print_log(
                f'nsd_images: there is no file {nsd_images!r}, so only all images are reported. Make it with '
                f'tools/coco_nsd_overlap.py nsd_stim_info_merged.csv --ids {nsd_images}.',
                'current',
                logging.WARNING,
            )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch, masks as run lengths.

        Args:
            data_batch: Ignored.
            data_samples: Each with ``img_id`` and ``pred_instances``: ``bboxes`` (n, 4) as x1 y1 x2 y2 in pixels of the
                original image, ``scores`` (n,), ``labels`` (n,), and ``masks`` (n, H, W) for ``'segm'``.
        """
        for sample in data_samples:
            predicted = sample['pred_instances']
            image = self.coco.imgs.get(sample['img_id'])
            size = tuple(sample['ori_shape'][:2]) if 'ori_shape' in sample else None
            if image and size and size != (image['height'], image['width']):
                raise ValueError(
                    f'{self.ann_file} says that image {image["id"]!r} has height and width '
                    f'{(image["height"], image["width"])}, but it was loaded with {size}. Correct the file.'
                )
            result = {name: predicted[name].cpu().numpy() for name in ('bboxes', 'scores', 'labels')}
            if 'segm' in self.metrics:
                result['masks'] = [_run_lengths(mask.cpu().numpy()) for mask in predicted['masks']]
            self.results.append(dict(result, img_id=sample['img_id']))

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Compute the metrics of the collected predictions.

        Raises:
            ValueError: An image or a class is not in the annotation file.
        """
        category_ids = self._category_ids()
        tested = {result['img_id'] for result in results}
        unknown = sorted(tested - set(self.coco.imgs))
        if unknown:
            raise ValueError(
                f'ann_file: {self.ann_file} has no image {unknown[0]} ({len(unknown)} of the tested ones are missing). '
                'Give the file that the tested dataset reads.'
            )
        if len(tested) < len(self.coco.imgs):
            print_log(f'Tested {len(tested)} of the {len(self.coco.imgs)} images of {self.ann_file}.', 'current')
        subsets = dict(coco=sorted(tested))
        if self.nsd_images is not None:
            subsets['coco_without_nsd'] = sorted(i for i in tested if int(i) not in self.nsd_images)
        metrics: Dict[str, float] = {f'{name}/images': len(image_ids) for name, image_ids in subsets.items()}
        for iou_type in self.metrics:
            entries = _coco_results(results, iou_type, category_ids)
            if self.outfile_prefix is not None:
                dump(entries, f'{self.outfile_prefix}.{iou_type}.json')
            for name, image_ids in subsets.items():
                values = self._evaluate(entries, iou_type, image_ids, category_ids)
                metrics.update({f'{name}/{iou_type}_{key}': value for key, value in values.items()})
        return metrics

    def _category_ids(self) -> List[int]:
        """List COCO's id of each label."""
        classes = self.dataset_meta['classes']
        found = [category for category in self.coco.cats.values() if category['name'] in classes]
        missing = sorted(set(classes) - {category['name'] for category in found})
        if missing:
            raise ValueError(
                f'ann_file: {self.ann_file} has no class {missing[0]!r} ({len(missing)} of {len(classes)} missing). '
                'Give the file that the tested dataset reads.'
            )
        return [category['id'] for category in found]

    def _evaluate(self, entries: List[dict], iou_type: str, image_ids: List[int], category_ids: List[int]) -> dict:
        if not image_ids:  # COCOeval fails without images
            return dict.fromkeys(NAMES, -1.0)
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            if entries:
                found = self.coco.loadRes([dict(entry) for entry in entries])  # loadRes changes them
            else:  # and fails without any
                found = _indexed(dict(self.coco.dataset, annotations=[]))
            evaluation = COCOeval(self.coco, found, iou_type)
            evaluation.params.imgIds, evaluation.params.catIds = image_ids, category_ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        lines = [line for line in text.getvalue().splitlines() if ' = ' in line]
        MMLogger.get_current_instance().info('\n'.join([f'{iou_type}, {len(image_ids)} images', *lines]))
        return {name: float(value) for name, value in zip(NAMES, evaluation.stats)}


def _indexed(content: dict) -> COCO:
    """Make pycocotools' index of annotations without its messages."""
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _run_lengths(mask: np.ndarray) -> dict:
    """Encode a mask (H, W) as COCO's compressed run lengths, as text."""
    encoded = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())


def _coco_results(results: List[dict], iou_type: str, category_ids: List[int]) -> List[dict]:
    """List the entries of a COCO results file; those of masks have no box, so that areas are those of the masks."""
    entries = []
    for result in results:
        for i, label in enumerate(result['labels']):
            entry = dict(image_id=result['img_id'], category_id=category_ids[label], score=float(result['scores'][i]))
            if iou_type == 'bbox':
                x1, y1, x2, y2 = result['bboxes'][i].tolist()
                entry['bbox'] = [x1, y1, x2 - x1, y2 - y1]
            else:
                entry['segmentation'] = result['masks'][i]
            entries.append(entry)
    return entries
