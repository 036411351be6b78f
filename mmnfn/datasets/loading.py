"""Images and label maps of downstream tasks: those that are damaged, or mean something else, are named."""

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
    """Load an image as MMCV does, and name the file that cannot be read.

    It takes MMCV's place under the same name, which the inferencers of MMDetection and MMSegmentation look for.

    Raises:
        DataError: The file is missing, damaged, cut off or too large.
    """

    def transform(self, results: dict) -> Optional[dict]:
        """Load the image of one sample."""
        path = results['img_path']
        try:
            return super().transform(results)
        except Exception as error:  # of OpenCV, MMCV and file systems
            raise DataError(f'{path} is no image that can be read: {_reason(error)}. Replace it.') from error


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Load a label map in place of MMSegmentation's ``LoadAnnotations``, which makes some label of any value.

    With the dataset's ``reduce_zero_label``, 0 is unlabelled and 1 … n are the classes; without, 0 … n − 1 are the
    classes and 255 is unlabelled. Adds ``gt_seg_map`` (H, W) uint8, classes from 0 and 255 for unlabelled. A sample
    without ``seg_map_path``, as inferencers make them, is left as it is.

    Args:
        num_classes: n, classes of the files: those that the dataset's class has where the config takes some of them.
        backend_args: See :class:`mmcv.transforms.LoadAnnotations`.

    Raises:
        DataError: The file cannot be read, is in colour, holds another value, or has another size than the image.
    """

    def __init__(self, num_classes: int, backend_args: Optional[dict] = None):
        self.num_classes, self.backend_args = num_classes, backend_args

    def transform(self, results: dict) -> dict:
        """Load the label map of one sample."""
        path = results.get('seg_map_path')
        if path is None:
            return results
        reduced = results['reduce_zero_label']
        labels = self._labels(path, reduced)
        size, image_size = (
            f'{shape[1]} x {shape[0]}' for shape in (labels.shape, results.get('ori_shape', labels.shape))
        )
        if size != image_size:
            raise DataError(
                f'{path} is {size} pixels, and its image {results["img_path"]} is {image_size}, turned as its EXIF tag '
                'says. Make them of one size.'
            )
        labels = labels - np.uint8(1) if reduced else labels  # 0 becomes 255
        if results.get('label_map') is not None:
            table = np.arange(256, dtype=np.uint8)
            table[list(results['label_map'])] = list(results['label_map'].values())
            labels = table[labels]
        results['gt_seg_map'] = labels
        results['seg_fields'].append('gt_seg_map')
        return results

    def _labels(self, path: str, reduced: bool) -> np.ndarray:
        """(H, W) uint8, values of the file."""
        try:
            labels = np.array(Image.open(io.BytesIO(fileio.get(path, backend_args=self.backend_args))))
        except Exception as error:  # Pillow raises many kinds for a damaged file
            raise DataError(f'{path} is no label map that can be read: {_reason(error)}. Replace it.') from error
        if labels.ndim != 2:
            raise DataError(
                f'{path} is a picture of {labels.shape[2]} channels; a label map has one, with the numbers of the '
                'classes (a palette is fine). Write it anew.'
            )
        wrong = labels[(labels >= self.num_classes + reduced) & (reduced | (labels != UNLABELLED))]
        if wrong.size:
            meaning = 'classes are 0…{0} and 255 is unlabelled'
            if reduced:
                meaning = 'reduce_zero_label is set: classes are 1…{1} and 0 is unlabelled'
            remedy = 'Write the maps anew, or correct classes and reduce_zero_label of the dataset.'
            if reduced and wrong[0] == UNLABELLED:
                remedy = 'Set reduce_zero_label=False if the maps are reduced already, else write 0 for 255.'
            raise DataError(
                f'{path}: {wrong.size} pixels have the value {wrong[0]}, but '
                f'{meaning.format(self.num_classes - 1, self.num_classes)}. {remedy}'
            )
        return labels.astype(np.uint8)


def _reason(error: Exception) -> str:
    """What an error says, in one line."""
    return ' '.join(str(error).split()).rstrip('.') or type(error).__name__
