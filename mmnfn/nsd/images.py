"""Images by 73k id, from NSD's own file or from a store of resized images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Collection, Union

import h5py
import numpy as np
from scipy.sparse import csr_matrix

from mmnfn.utils import DataError, progress_bar

from .release import existing
from .store import atomic_h5, lock, memory_place, open_h5


class StimulusImages:
    """Read images; the object can be pickled, and used in forked or spawned workers.

    Args:
        path: ``nsd_stimuli.hdf5`` (dataset ``imgBrick``) or ``images_<size>.h5`` made by ``tools/prepare_nsd.py``.

    Attributes:
        image_id: (images,) 0-based 73k ids, ascending.
        size: Side in pixels.
        source: What an image store was made from; None for NSD's own file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither of the two.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = existing(
            Path(path), 'file of images', 'Make it with tools/prepare_nsd.py --image-size, or give nsd_stimuli.hdf5.'
        )
        try:
            with h5py.File(self.path, 'r') as file:
                self.raw = 'imgBrick' in file
                images = file['imgBrick' if self.raw else 'images']
                shape, dtype = images.shape, images.dtype
        except (KeyError, OSError) as error:
            raise ValueError(f'{self.path} is no HDF5 file of images: {error}. Download or make it again.') from error
        if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or dtype != np.uint8:
            raise ValueError(
                f'{self.path} must hold uint8 images of shape (images, S, S, 3); found {dtype} {shape}. Is it a file '
                'of NSD stimuli?'
            )
        self.count, self.size = shape[:2]
        self.image_id, self.source = np.arange(self.count), None
        if not self.raw:
            with open_h5(self.path, 'image store') as file:
                self.image_id, self.source = file['image_id'][()], file.attrs.get('source')
                self._place = memory_place(file['images'])
        self._opened, self._process = None, None

    def __getstate__(self):
        return {**self.__dict__, '_opened': None, '_process': None}

    def _images(self) -> Union[h5py.Dataset, np.ndarray]:
        """Open the file; a forked process opens it anew, because it must not share HDF5's state with its parent."""
        if self._process != os.getpid():
            if self.raw:
                self._opened = h5py.File(self.path, 'r')['imgBrick']
            else:
                self._opened = np.memmap(self.path, mode='r', **self._place)
            self._process = os.getpid()
        return self._opened

    def missing(self, image_ids: np.ndarray) -> np.ndarray:
        """Return those of some 0-based 73k ids that have no image here."""
        return np.setdiff1d(image_ids, self.image_id)

    def __getitem__(self, image_id: int) -> np.ndarray:
        """Return the (S, S, 3) uint8 RGB image of a 0-based 73k id; KeyError where there is none."""
        row = np.searchsorted(self.image_id, image_id)
        if row == len(self.image_id) or self.image_id[row] != image_id:
            raise KeyError(
                f'{self.path} has no image with 73k id (0-based) {image_id}. Prepare the image store again together '
                'with the subjects you use.'
            )
        try:
            return np.array(self._images()[row])
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f'{self.path}: image {image_id} cannot be read: {error}. Download it again.') from error


def open_stimuli(source: Path) -> StimulusImages:
    """Open ``nsd_stimuli.hdf5``; FileNotFoundError or ValueError where it is missing or something else."""
    images = StimulusImages(existing(source, 'stimulus file', 'Download nsd_stimuli.hdf5 (39 GB).'))
    if not images.raw:
        raise ValueError(f'{source} has no dataset "imgBrick". Is it nsd_stimuli.hdf5?')
    return images


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a square image by area: a pixel is the mean of the pixels it covers, parts counted as parts.

    Args:
        image: (S, S, 3) uint8.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    side, edges = len(image), np.arange(size + 1) * len(image) / size
    pixel = np.arange(side)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = csr_matrix((covered.clip(0) * size / side).astype(np.float32))  # (size, S), rows of sum 1
    rows = (weights @ image.reshape(side, -1)).reshape(size, side, 3)
    columns = weights @ rows.swapaxes(0, 1).reshape(side, -1)
    return np.rint(columns.reshape(size, size, 3).swapaxes(0, 1)).astype(np.uint8)


def write_image_store(
    store: Path,
    image_ids: Collection[int],
    size: int,
    read: Callable[[int], np.ndarray],
    source: str,
    progress: bool = True,
) -> Path:
    """Write ``images_<size>.h5``: resized images as memory-mappable uint8 (images, size, size, 3).

    Images that an earlier call wrote there from the same source stay in it, and processes that write there wait for
    each other.

    Args:
        store: Folder to write into.
        image_ids: 0-based 73k ids, in any order.
        size: Side in pixels.
        read: 73k id → (S, S, 3) uint8 image.
        source: What the images come from.
        progress: Show a progress bar.

    Returns:
        Path of the file.

    Raises:
        OSError: If the disk is full.
    """
    path = Path(store) / f'images_{size}.h5'
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = np.unique(list(image_ids))
    with lock(path, wait=True):
        try:
            earlier = StimulusImages(path)
            kept = set(earlier.image_id.tolist()) if earlier.source == source else set()
        except (FileNotFoundError, ValueError):  # nothing there, or of no use
            kept = set()
        if kept.issuperset(wanted.tolist()):
            return path
        wanted = np.union1d(wanted, sorted(kept)).astype(np.int64)
        with atomic_h5(path, len(wanted) * size * size * 3) as file:
            images = file.create_dataset('images', (len(wanted), size, size, 3), np.uint8)
            for row, image_id in enumerate(progress_bar(wanted.tolist(), desc='images', unit='image', show=progress)):
                images[row] = earlier[image_id] if image_id in kept else resize(read(image_id), size)
            file['image_id'] = wanted
            file.attrs['source'] = source
    return path
