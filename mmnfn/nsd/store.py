"""The ROI store: one HDF5 file per subject with what training and evaluation need, written once, read-only after."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional, Tuple, Union

import h5py
import numpy as np

from mmnfn.disk import check_room

from .hdf5 import digest, plain_dataset, read_attributes, read_table, write_attributes

FORMAT_VERSION = 4
"""Also another one where the preparation computes something else, so that stores of before are made again."""
TABLES_BYTES = 4 << 20
"""More than a store needs beside its responses."""
REMEDY = 'Make it with tools/prepare_nsd.py (or prepare_algonauts.py).'


class StoreTables(NamedTuple):
    """Everything in a store except the responses.

    Attributes:
        subject: ``'subj0N'``.
        image_id: (images,) 0-based 73k ids, ascending.
        repeats: (images,) presentations that were averaged; 0 where that is not known.
        is_test: (images,) bool.
        seen_by_all: (images,) bool, seen three times by every subject of the experiment.
        coordinates: (V, 3) mm.
        rois: ROI class → ascending indices into the V voxels.
        ncsnr: (V,) and noise_ceiling: (V,) percent of variance of the averaged test responses; NaN if unknown.
        location: Data sets that say where the voxels are: ``voxel`` (V, 3) x, y, z and ``affine`` for a volume,
            ``vertex`` (V,) and ``hemisphere`` (V,) for a surface.
        attributes: Where it all comes from, and how it was processed.
        photo_id: (images,) photograph of each image, see :func:`.stim_info.photographs`; None if all are their own,
            as in NSD. Written only where several images are of one.
    """

    subject: str
    image_id: np.ndarray
    repeats: np.ndarray
    is_test: np.ndarray
    seen_by_all: np.ndarray
    coordinates: np.ndarray
    rois: Dict[str, np.ndarray]
    ncsnr: np.ndarray
    noise_ceiling: np.ndarray
    location: Dict[str, np.ndarray]
    attributes: Dict
    photo_id: Optional[np.ndarray] = None

    def write(self, file: h5py.File) -> None:
        """Write the data sets and attributes."""
        file['image_id'] = np.asarray(self.image_id, np.int64)
        file['repeats'] = np.asarray(self.repeats, np.uint8)
        file['split'] = np.where(self.is_test, 'test', 'train').astype('S5')
        file['seen_by_all'] = np.asarray(self.seen_by_all, bool)
        file['coordinates'] = np.asarray(self.coordinates, np.float32)
        for name, index in self.rois.items():
            file[f'roi/{name}'] = np.asarray(index, np.int32)
        file['ncsnr'] = np.asarray(self.ncsnr, np.float32)
        file['noise_ceiling'] = np.asarray(self.noise_ceiling, np.float32)
        for name, values in self.location.items():
            file[name] = values
        if self.photo_id is not None and (self.photo_id != self.image_id).any():
            file['photo_id'] = np.asarray(self.photo_id, np.int64)
        write_attributes(file, subject=self.subject, noise_ceiling_unit=NOISE_CEILING_UNIT, **self.attributes)


NOISE_CEILING_UNIT = 'percent of variance of the averaged test responses'


@contextmanager
def atomic_h5(path: Path, size: int = 0) -> Iterator[h5py.File]:
    """Write an HDF5 file under a temporary name and rename it when complete; nothing is left after an error.

    Args:
        path: The file.
        size: Bytes of its large data sets. A disk without room for them is noticed before HDF5 meets it, which can
            crash when it cannot write its tables.

    Yields:
        The open file.
    """
    part = path.with_name(path.name + '.part')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.unlink(missing_ok=True)  # of a killed run, which took the room that is asked for
        check_room(part, size + TABLES_BYTES)
        with h5py.File(part, 'w', libver='earliest') as file:
            yield file
            file.flush()  # gives every data set its place
            write_attributes(file, digest=digest(file), format_version=FORMAT_VERSION, complete=True)
        with open(part, 'rb') as stream:
            os.fsync(stream.fileno())
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
        raise FileNotFoundError(f'{what} is missing: {path} does not exist. {REMEDY}')
    file = None
    try:
        file = h5py.File(path, 'r')
        version = file.attrs['format_version'] if 'format_version' in file.attrs else None
        current = isinstance(version, np.integer) and version == FORMAT_VERSION  # others have other attributes
        said = read_attributes(file) if current else {}
        complete = bool(said.get('complete'))
        damaged = complete and said.get('digest') != digest(file)
    except Exception as error:  # HDF5 raises many kinds for a damaged file
        if file is not None:
            file.close()
        raise ValueError(f'{path} ({what}) is no readable HDF5 file: {error}. {REMEDY}') from error
    if damaged or not complete:
        file.close()
        if damaged:
            raise ValueError(f'{path} ({what}) is damaged: its content is not that of its digest. {REMEDY}')
        raise ValueError(
            f'{path} ({what}) is not complete or of another version (found version {version}, expected '
            f'{FORMAT_VERSION}). {REMEDY}'
        )
    return file


class ROIStore:
    """Read access to ``subj0N.h5``; safe to pickle and to use in forked or spawned workers.

    Args:
        path: The file.

    Attributes:
        subject: ``'subj0N'``.
        space: ``'func1pt8mm'`` or ``'fsaverage'``.
        image_id: (images,) 0-based 73k ids, ascending.
        photo_id: (images,) photograph that each was cut from; ``image_id`` where each is the only one of its.
        split: (images,) ``'train'`` or ``'test'``.
        seen_by_all: (images,) bool, seen three times by every subject of the experiment.
        repeats: (images,) presentations that were averaged; 0 where that is not known.
        coordinates: (V, 3) float32, mm.
        ncsnr: (V,) and noise_ceiling: (V,) percent of variance of the averaged test responses; NaN if unknown.
        location: Where the voxels are: ``voxel`` (V, 3) indices into the volume and ``affine``, or ``vertex`` (V,) and
            ``hemisphere`` (V,) of the surface.
        trial_row: (trials,) row of the image of each trial, and trial_session: (trials,) its session (1-based); None
            if the store holds no single trials.
        attributes: What the file says of its making.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no complete store of this version.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)
        with open_complete(self.path, 'ROI store') as file:
            try:
                self._read(file)
            except Exception as error:  # HDF5 raises many kinds for a damaged file
                raise ValueError(f'{self.path} (ROI store) is damaged: {error}. {REMEDY}') from error
        self._maps = {}

    def _read(self, file: h5py.File) -> None:
        """Everything but the responses, as far as it fits together."""
        self.attributes = read_attributes(file)
        self.subject, self.space = str(self.attributes['subject']), str(self.attributes['space'])
        self.image_id = read_table(file, 'image_id', 'iu', None)
        images = len(self.image_id)
        self.photo_id = read_table(file, 'photo_id', 'iu', images) if 'photo_id' in file else self.image_id
        self.split = read_table(file, 'split', 'S', images).astype(str)
        self.seen_by_all = read_table(file, 'seen_by_all', 'b', images)
        self.repeats = read_table(file, 'repeats', 'iu', images)
        self.coordinates = read_table(file, 'coordinates', 'f', None, 3)
        voxels = len(self.coordinates)
        self.ncsnr = read_table(file, 'ncsnr', 'f', voxels)
        self.noise_ceiling = read_table(file, 'noise_ceiling', 'f', voxels)
        shapes = dict(voxel=('iu', voxels, 3), affine=('f', 4, 4), vertex=('iu', voxels), hemisphere=('S', voxels))
        self.location = {name: read_table(file, name, *shape) for name, shape in shapes.items() if name in file}
        self._rois = {name: _below(read_table(file, f'roi/{name}', 'iu', None), voxels) for name in file['roi']}
        self._places = {'responses': _place(file, 'responses', images, voxels)}
        self.trial_row = self.trial_session = None
        if 'trials' in file:
            self.trial_row = _below(read_table(file, 'trials/row', 'iu', None), images)
            self.trial_session = read_table(file, 'trials/session', 'iu', len(self.trial_row))
            self._places['trials'] = _place(file, 'trials/responses', len(self.trial_row), voxels)
        volume = np.asarray(self.attributes.get('volume_shape', (np.inf,) * 3))
        _below(self.location.get('voxel', np.empty((0, 3), int)), volume)
        if (np.diff(self.image_id) <= 0).any() or not np.isin(self.split, ('train', 'test')).all():
            raise ValueError('its images are not in order, or in no split')

    def __getstate__(self):
        return {**self.__dict__, '_maps': {}}

    def _map(self, name: str) -> np.ndarray:
        if name not in self._maps:
            offset, shape, dtype = self._places[name]
            self._maps[name] = np.memmap(self.path, dtype, 'r', offset, shape)
        return self._maps[name]

    @property
    def responses(self) -> np.ndarray:
        """(images, V) memory map of the averaged, z-scored responses; 0 where a voxel has no data."""
        return self._map('responses')

    @property
    def trial_responses(self) -> np.ndarray:
        """(trials, V) memory map of the single-trial responses; NaN where a voxel has no data.

        Raises:
            ValueError: If the store holds none.
        """
        if self.trial_row is None:
            raise ValueError(f'{self.path} holds no single trials. Make it again with tools/prepare_nsd.py --trials.')
        return self._map('trials')

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


def _place(file: h5py.File, name: str, *shape: int) -> Tuple[int, Tuple[int, ...], np.dtype]:
    """Where a contiguous data set of a shape lies in its file: byte, shape and type, for a memory map."""
    dataset = plain_dataset(file, name)
    offset = None if dataset is None else dataset.id.get_offset()
    if offset is None or dataset.shape != shape or dataset.dtype not in (np.float16, np.float32):
        raise ValueError(f'it has no data set {name!r} of {shape} values in one piece')
    return offset, dataset.shape, dataset.dtype


def _below(values: np.ndarray, end: Union[int, np.ndarray]) -> np.ndarray:
    """The values, or ValueError where they are no indices below ``end``."""
    if values.size and ((values < 0) | (values >= end)).any():
        raise ValueError(f'it has an index of {values.min()} to {values.max()}, and {end} places')
    return values
