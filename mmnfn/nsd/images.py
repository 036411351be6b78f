"""Pictures by 73k id, from NSD's own file or from a resized image store."""

from __future__ import annotations

import fcntl
import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional, Union

import cv2
import h5py
import numpy as np

from mmnfn.disk import full_disk_named
from mmnfn.utils import DataError, progress_bar

from .files import existing
from .hdf5 import plain_dataset, read_attributes, read_table, write_attributes
from .store import atomic_h5, open_complete


class StimulusImages:
    """Read access to pictures; safe to pickle and to use in forked or spawned workers.

    Args:
        path: ``nsd_stimuli.hdf5`` (dataset ``imgBrick``) or ``images_<size>.h5`` made by ``tools/prepare_nsd.py``.

    Attributes:
        image_id: (pictures,) 0-based 73k ids, ascending.
        size: Side in pixels.
        source: What an image store was made from; None of NSD's own file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither of the two.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = existing(
            Path(path), 'file of pictures', 'Make it with tools/prepare_nsd.py --image-size, or give nsd_stimuli.hdf5.'
        )
        try:
            with h5py.File(self.path, 'r') as file:
                self.raw = 'imgBrick' in file
                pictures = plain_dataset(file, 'imgBrick' if self.raw else 'images')
                shape, kind = (None, None) if pictures is None else (pictures.shape, pictures.dtype)
        except Exception as error:  # HDF5 raises many kinds for a damaged file
            raise ValueError(f'{self.path} is no readable HDF5 file: {error}. Download or make it again.') from error
        if shape is None or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or kind != np.uint8:
            raise ValueError(
                f'{self.path} has neither imgBrick nor images of type uint8 and shape (pictures, S, S, 3); found '
                f'{kind} {shape}. Is it a file of NSD stimuli?'
            )
        self.count, self.size = shape[:2]
        self.image_id, self.source = np.arange(self.count), None
        if not self.raw:
            with open_complete(self.path, 'image store') as file:
                try:
                    self.image_id = read_table(file, 'image_id', 'iu', self.count)
                    self.source = read_attributes(file).get('source')
                    self._offset = plain_dataset(file, 'images').id.get_offset()
                    if self._offset is None or (np.diff(self.image_id) <= 0).any():
                        raise ValueError('its pictures are not in one piece and in order')
                except ValueError as error:
                    raise ValueError(f'{self.path} is damaged: {error}. Make it again.') from error
        self._source, self._process = None, None

    def __getstate__(self):
        return {**self.__dict__, '_source': None, '_process': None}

    def _pictures(self) -> Union[h5py.Dataset, np.ndarray]:
        """The opened file; a forked process opens it anew, for it must not share HDF5's state with its parent."""
        if self._process != os.getpid():
            if self.raw:
                self._source = h5py.File(self.path, 'r')['imgBrick']
            else:
                shape = (self.count, self.size, self.size, 3)
                self._source = np.memmap(self.path, np.uint8, 'r', self._offset, shape)
            self._process = os.getpid()
        return self._source

    def missing(self, image_ids: np.ndarray) -> np.ndarray:
        """Those of some 0-based 73k ids that there is no picture of."""
        return np.setdiff1d(image_ids, self.image_id)

    def __getitem__(self, image_id: int) -> np.ndarray:
        """(S, S, 3) uint8 RGB picture of a 0-based 73k id; KeyError where there is none."""
        if self.raw:
            if not 0 <= image_id < self.count:
                raise KeyError(f'{self.path} holds 73k ids (0-based) 0…{self.count - 1}, not {image_id}.')
            try:
                return self._pictures()[int(image_id)]
            except (OSError, RuntimeError, ValueError) as error:
                raise DataError(
                    f'{self.path}: picture {image_id} cannot be read: {error}. Download it again.'
                ) from error
        row = np.searchsorted(self.image_id, image_id)
        if row == len(self.image_id) or self.image_id[row] != image_id:
            raise KeyError(
                f'{self.path} has no picture with 73k id (0-based) {image_id}. Prepare the image store again '
                'together with the subjects you use.'
            )
        return np.array(self._pictures()[row])


def write_image_store(source: Path, store: Path, image_ids: np.ndarray, size: int, progress: bool = True) -> Path:
    """Write ``images_<size>.h5``: the pictures of some 73k ids, resized, as memory-mappable uint8 (images, size,
    size, 3). What an earlier call wrote there from the same file stays in it.

    Args:
        source: ``nsd_stimuli.hdf5``.
        store: Folder to write into.
        image_ids: 0-based 73k ids, in any order.
        size: Side in pixels.
        progress: Show a progress bar.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError, ValueError: If the stimulus file is missing, damaged or has no such picture.
        NoRoom: The disk is full.
    """
    pictures = open_stimuli(source)
    image_ids = np.unique(image_ids)
    if image_ids[-1] >= pictures.count:
        raise ValueError(f'{source} holds {pictures.count} pictures, but 73k id {image_ids[-1]} (0-based) is wanted.')
    Path(store).mkdir(parents=True, exist_ok=True)
    with one_writer(Path(store)):
        return _write_image_store(pictures, source, store, image_ids, size, progress)


def _write_image_store(
    pictures: StimulusImages, source: Path, store: Path, image_ids: np.ndarray, size: int, progress: bool
) -> Path:
    """:func:`write_image_store`, when nobody else writes there."""
    path, said = Path(store) / f'images_{size}.h5', f'{source.name} {source.stat().st_size} {source.stat().st_mtime_ns}'
    earlier, kept = earlier_pictures(path), ()
    if earlier is not None and earlier.source == said:
        if not len(earlier.missing(image_ids)):
            return path
        kept = set(earlier.image_id.tolist())
        image_ids = np.union1d(image_ids, earlier.image_id)
    elif earlier is not None:
        lost = np.setdiff1d(earlier.image_id, image_ids)
        if len(lost):
            warnings.warn(
                f'{path} was made from another stimulus file, or from this one before it was copied: {len(lost)} of '
                'its pictures, which are of other subjects, are not kept. Prepare those subjects again.',
                stacklevel=2,
            )
    with full_disk_named(path), atomic_h5(path, len(image_ids) * size * size * 3) as file:
        images = file.create_dataset('images', (len(image_ids), size, size, 3), np.uint8)
        for row, image_id in enumerate(progress_bar(image_ids, desc='pictures', unit='picture', show=progress)):
            if image_id in kept:
                images[row] = earlier[image_id]
            else:
                images[row] = cv2.resize(pictures[image_id], (size, size), interpolation=cv2.INTER_AREA)
        file['image_id'] = image_ids
        write_attributes(file, source=said)
    return path


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process writes pictures into a folder: each adds to what the others have written."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def open_stimuli(source: Path) -> StimulusImages:
    """``nsd_stimuli.hdf5``; FileNotFoundError or ValueError where it is missing or something else."""
    existing(source, 'stimulus file', 'Download nsd_stimuli.hdf5 (39 GB).')
    pictures = StimulusImages(source)
    if not pictures.raw:
        raise ValueError(f'{source} has no dataset "imgBrick". Is it nsd_stimuli.hdf5?')
    return pictures


def earlier_pictures(path: Path) -> Optional[StimulusImages]:
    """What an earlier call wrote into ``images_<size>.h5``; None where there is nothing of use."""
    try:
        return StimulusImages(path)
    except (FileNotFoundError, ValueError):
        return None
