"""Pictures by 73k id, from NSD's own file or from a resized image store."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import h5py
import numpy as np

from .nsd_layout import existing
from .roi_store import open_complete


class StimulusImages:
    """Read access to pictures; safe to pickle and to use in forked or spawned workers.

    Args:
        path: ``nsd_stimuli.hdf5`` (dataset ``imgBrick``) or ``images_<size>.h5`` made by ``tools/prepare_nsd.py``.

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
                if not self.raw and 'images' not in file:
                    raise ValueError(f'{self.path} has neither imgBrick nor images. Is it a file of NSD stimuli?')
                self.size = file['imgBrick' if self.raw else 'images'].shape[1]
                self.count = len(file['imgBrick' if self.raw else 'images'])
        except OSError as error:
            raise ValueError(f'{self.path} is no readable HDF5 file: {error}.') from error
        if not self.raw:
            with open_complete(self.path, 'image store') as file:
                self._ids = file['image_id'][()]
                images = file['images']
                self._layout = (images.id.get_offset(), images.shape)
        self._source = None

    def __getstate__(self):
        return {**self.__dict__, '_source': None}

    def __getitem__(self, image_id: int) -> np.ndarray:
        """(S, S, 3) uint8 RGB picture of a 0-based 73k id; KeyError where there is none."""
        if self.raw:
            if not 0 <= image_id < self.count:
                raise KeyError(f'{self.path} holds 73k ids (0-based) 0…{self.count - 1}, not {image_id}.')
            if self._source is None:
                self._source = h5py.File(self.path, 'r')['imgBrick']
            return self._source[int(image_id)]
        row = np.searchsorted(self._ids, image_id)
        if row == len(self._ids) or self._ids[row] != image_id:
            raise KeyError(
                f'{self.path} has no picture with 73k id (0-based) {image_id}. Prepare the image store again '
                'together with the subjects you use.'
            )
        if self._source is None:
            offset, shape = self._layout
            self._source = np.memmap(self.path, np.uint8, 'r', offset, shape)
        return np.array(self._source[row])
