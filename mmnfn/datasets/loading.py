"""Images and label maps of downstream tasks; errors name a file that is damaged or means something else."""

from __future__ import annotations

import io
from typing import Optional

import mmcv.transforms
import numpy as np
from mmcv.transforms import TRANSFORMS as MMCV_TRANSFORMS, BaseTransform
from mmengine import fileio
from PIL import Image

from mmnfn.registry import TRANSFORMS
from mmnfn.utils import DataError

UNLABELLED = 255
"""MMSegmentation's label of pixels that do not count."""


@MMCV_TRANSFORMS.register_module(force=True)
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """Load an image like MMCV, and name a file that cannot be read.

    It replaces MMCV's transform under the same name, because the inferencers of MMDetection and MMSegmentation look
    for that name.

    Raises:
        DataError: The file is missing, damaged, cut off or too large.
    """

    def transform(self, results: dict) -> Optional[dict]:
        """Load the image of one sample."""
        try:
            return super().transform(results)
        except Exception as error:  # of OpenCV, MMCV and file systems
            raise _unreadable(results['img_path'], 'an image', error) from error


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Load a label map, and refuse values that are no class; MMSegmentation's ``LoadAnnotations`` accepts any.

    With the dataset's ``reduce_zero_label``, 0 is unlabelled and 1 … n are the classes; without, 0 … n − 1 are the
    classes and 255 is unlabelled. Adds ``gt_seg_map`` (H, W) uint8, classes from 0 and 255 for unlabelled. A sample
    without ``seg_map_path``, such as an inferencer's, is returned unchanged.

    Args:
        num_classes: n, the classes in the files, even if the config uses only some of them.
        backend_args: See :class:`mmcv.transforms.LoadAnnotations`.

    Raises:
        DataError: The file cannot be read, is in colour, holds another value, or differs in size from the image.
    """

    def __init__(self, num_classes: int, backend_args: Optional[dict] = None):
        self.num_classes, self.backend_args = num_classes, backend_args

    def transform(self, results: dict) -> dict:
        """Load the label map of one sample."""
        path = results.get('seg_map_path')
        if path is None:
            return results
        reduced = results['reduce_zero_label']
        labels = self._read(path, reduced)
        shape = tuple(results.get('ori_shape', labels.shape))
        if labels.shape != shape:
            raise DataError(
                f'{path} is {labels.shape[1]} x {labels.shape[0]} pixels, and its image {results["img_path"]} is '
                f'{shape[1]} x {shape[0]}, rotated by its EXIF tag if it has one. Make both the same size.'
            )
        labels = labels - np.uint8(1) if reduced else labels  # 0 becomes 255
        if results.get('label_map') is not None:
            table = np.arange(256, dtype=np.uint8)
            table[list(results['label_map'])] = list(results['label_map'].values())
            labels = table[labels]
        results['gt_seg_map'] = labels
        results['seg_fields'].append('gt_seg_map')
        return results

    def _read(self, path: str, reduced: bool) -> np.ndarray:
        """Read the values of the file, (H, W) uint8."""
        try:
            labels = np.array(Image.open(io.BytesIO(fileio.get(path, backend_args=self.backend_args))))
        except Exception as error:  # Pillow raises many kinds for a damaged file
            raise _unreadable(path, 'a label map', error) from error
        if labels.ndim != 2:
            raise DataError(
                f'{path} is an image of {labels.shape[2]} channels; a label map has one, with the class numbers (a '
                'palette is fine). Write it again.'
            )
        n = self.num_classes
        wrong = labels[(labels >= n + reduced) & (reduced | (labels != UNLABELLED))]
        if wrong.size:
            meaning = f'classes are 0…{n - 1} and 255 is unlabelled'
            remedy = 'Write the maps again, or correct classes and reduce_zero_label of the dataset.'
            if reduced:
                meaning = f'reduce_zero_label is set: classes are 1…{n} and 0 is unlabelled'
            if reduced and wrong[0] == UNLABELLED:
                remedy = 'Set reduce_zero_label=False if the maps are reduced already, else write 0 for 255.'
            raise DataError(f'{path}: {wrong.size} pixels have the value {wrong[0]}, but {meaning}. {remedy}')
        return labels.astype(np.uint8)


def _unreadable(path: str, kind: str, error: Exception) -> DataError:
    reason = ' '.join(str(error).split()).rstrip('.') or type(error).__name__
    return DataError(f'{path} cannot be read as {kind}: {reason}. Replace it.')
