"""Images of users, as a model wants them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional, Union

import cv2
import numpy as np
from mmengine.config import Config
from PIL import Image, ImageOps

ImageLike = Union[str, Path, np.ndarray, Image.Image]


def config_image_size(cfg: Optional[Config]) -> int:
    """Side of the pictures of a config's data, in pixels.

    Raises:
        ValueError: The config does not tell.
    """
    for name in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        file = Path(str(((cfg or {}).get(name) or {}).get('dataset', {}).get('images', ''))).name
        match = re.fullmatch(r'images_(\d+)\.h5', file)
        if match:
            return int(match.group(1))
        if file == 'nsd_stimuli.hdf5':
            return 425
    raise ValueError('image_size: the config does not tell the size of its pictures, so give image_size.')


def read_image(image: ImageLike) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image in any of its forms, turned as its EXIF tag says.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no image, or one whose values have no range that is known (32 bits, floating point).
    """
    if isinstance(image, (str, Path)):
        if not Path(image).is_file():
            raise FileNotFoundError(f'images: there is no file {str(image)!r}.')
        try:
            with Image.open(image) as opened:
                return read_image(ImageOps.exif_transpose(opened))
        except Exception as error:  # Pillow raises many kinds for a damaged file, and one of its own for a huge one
            raise ValueError(f'images: {image} is no image that can be read: {error}') from error
    if isinstance(image, Image.Image):
        if image.mode.startswith('I;16'):  # which Pillow would clip at 255
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        if image.mode in ('I', 'F'):
            raise ValueError(f"images: its values are of Pillow's mode {image.mode!r}; give 8 or 16 bits a channel.")
        return np.array(image.convert('RGB'))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f'images: an array must be (H, W, 3) uint8 RGB, but found {found}.')
    return image


def centre_square(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3): the square in the middle, resized as tools/prepare_nsd.py does."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    image = image[top : top + side, left : left + side]
    if side == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
