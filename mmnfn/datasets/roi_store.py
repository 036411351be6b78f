"""The ROI store: one HDF5 file per subject with what training and evaluation need, written once, read-only after."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence, Tuple, Union

import h5py
import numpy as np
import torch

from mmnfn.structures import SubjectGeometry

FORMAT_VERSION = 1


@contextmanager
def atomic_h5(path: Path) -> Iterator[h5py.File]:
    """Write an HDF5 file under a temporary name and rename it when complete; nothing is left after an error."""
    part = path.with_name(path.name + '.part')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with h5py.File(part, 'w', libver='earliest') as file:
            yield file
            file.attrs['format_version'] = FORMAT_VERSION
            file.attrs['complete'] = True
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def open_complete(path: Union[str, Path], what: str) -> h5py.File:
    """Open a file of this package for reading.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no HDF5 file, incomplete or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{what} is missing: {path} does not exist. Make it with tools/prepare_nsd.py.')
    try:
        file = h5py.File(path, 'r')
    except OSError as error:
        raise ValueError(
            f'{path} ({what}) is no readable HDF5 file: {error}. Make it again with tools/prepare_nsd.py.'
        ) from error
    version = file.attrs.get('format_version')
    if not file.attrs.get('complete', False) or version != FORMAT_VERSION:
        file.close()
        raise ValueError(
            f'{path} ({what}) is not complete or of another version (found version {version}, expected '
            f'{FORMAT_VERSION}). Make it again with tools/prepare_nsd.py.'
        )
    return file


class ROIStore:
    """Read access to ``subj0N.h5``; safe to pickle and to use in forked or spawned workers.

    Args:
        path: The file.

    Attributes:
        subject: ``'subj0N'``.
        image_id: (images,) 0-based 73k ids, ascending.
        split: (images,) ``'train'`` or ``'test'``.
        repeats: (images,) presentations that were averaged.
        coordinates: (V, 3) float32, mm.
        ncsnr: (V,) and noise_ceiling: (V,) percent of variance of the averaged test responses.
        voxel: (V, 3) int indices into the functional volume.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)
        with open_complete(self.path, 'ROI store') as file:
            self.subject = str(file.attrs['subject'])
            self.image_id = file['image_id'][()]
            self.split = file['split'].asstr()[()]
            self.repeats = file['repeats'][()]
            self.coordinates = file['coordinates'][()]
            self.voxel = file['voxel'][()]
            self.ncsnr = file['ncsnr'][()]
            self.noise_ceiling = file['noise_ceiling'][()]
            self.affine = file['affine'][()]
            self._rois = {name: file['roi'][name][()] for name in file['roi']}
            responses = file['responses']
            self._layout = (responses.id.get_offset(), responses.shape, responses.dtype)
        self._map = None

    def __getstate__(self):
        return {**self.__dict__, '_map': None}

    @property
    def responses(self) -> np.ndarray:
        """(images, V) memory map of the averaged, z-scored responses; 0 where a voxel has no data."""
        if self._map is None:
            offset, shape, dtype = self._layout
            self._map = np.memmap(self.path, dtype, 'r', offset, shape)
        return self._map

    @property
    def roi_classes(self) -> Tuple[str, ...]:
        """Names of the ROI classes in the file."""
        return tuple(self._rois)

    def roi(self, name: str) -> np.ndarray:
        """Voxel indices of an ROI class (empty where the subject lacks it); ValueError for an unknown one."""
        if name not in self._rois:
            raise ValueError(
                f'ROI {name!r} is not in {self.path}, which has {", ".join(self._rois)}. Prepare the store '
                'with it, or leave it out of roi_names.'
            )
        return self._rois[name]

    def geometry(self, roi_names: Sequence[str]) -> Tuple[SubjectGeometry, np.ndarray]:
        """Geometry of the chosen ROIs and the voxel indices (N,) in the order of its voxel axis."""
        parts = [self.roi(name) for name in roi_names]
        index = np.concatenate(parts)
        if not index.size:
            raise ValueError(f'{self.path} has no voxel in {", ".join(roi_names)}. Choose other ROIs.')
        geometry = SubjectGeometry(
            self.subject, tuple(roi_names), tuple(len(p) for p in parts), torch.from_numpy(self.coordinates[index])
        )
        return geometry, index
