"""The ROI store: one HDF5 file per subject with what training and evaluation need, written once, read-only after."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import h5py
import numpy as np

from mmnfn.utils import atomic_write

from .release import HEMISPHERES, ROI_CLASSES, ROILabels

FORMAT_VERSION = 6
"""Also raised when the preparation computes something else, so that older stores are made again."""
TABLES_BYTES = 4 << 20
"""More than a store needs beside its responses."""
REMEDY = 'Make it with tools/prepare_nsd.py (or prepare_algonauts.py).'
NOISE_CEILING_UNIT = 'percent of variance of the averaged test responses'


class StoreTables(NamedTuple):
    """Hold everything in a store except the responses; the names are those of :class:`ROIStore`.

    Attributes:
        is_test: (images,) bool, the split.
        rois: ROI class → labels of the V voxels.
        photo_id: None if each image is its own photograph, as in NSD. Written only where several images are of one.
        prf: None if no receptive fields were measured.
    """

    subject: str
    image_id: np.ndarray
    repeats: np.ndarray
    is_test: np.ndarray
    seen_by_all: np.ndarray
    coordinates: np.ndarray
    rois: Dict[str, ROILabels]
    hemisphere: np.ndarray
    ncsnr: np.ndarray
    noise_ceiling: np.ndarray
    location: Dict[str, np.ndarray]
    attributes: Dict
    photo_id: Optional[np.ndarray] = None
    prf: Optional[np.ndarray] = None

    def write(self, file: h5py.File) -> None:
        """Write the datasets and attributes."""
        file['image_id'] = np.asarray(self.image_id, np.int64)
        file['repeats'] = np.asarray(self.repeats, np.uint8)
        file['split'] = np.where(self.is_test, 'test', 'train').astype('S5')
        file['seen_by_all'] = np.asarray(self.seen_by_all, bool)
        file['coordinates'] = np.asarray(self.coordinates, np.float32)
        for name, roi in self.rois.items():
            file[f'roi/{name}'] = np.asarray(roi.values, np.int16)
            file[f'roi/{name}'].attrs.update(labels=list(roi.names.values()), numbers=list(roi.names))
        file['hemisphere'] = np.asarray(self.hemisphere, 'S2')
        file['ncsnr'] = np.asarray(self.ncsnr, np.float32)
        file['noise_ceiling'] = np.asarray(self.noise_ceiling, np.float32)
        for name, values in self.location.items():
            file[name] = values
        if self.photo_id is not None and (self.photo_id != self.image_id).any():
            file['photo_id'] = np.asarray(self.photo_id, np.int64)
        if self.prf is not None:
            file['prf'] = np.asarray(self.prf, np.float32)
        file.attrs.update(self.attributes, subject=self.subject, noise_ceiling_unit=NOISE_CEILING_UNIT)


@contextmanager
def atomic_h5(path: Path, size: int = 0) -> Iterator[h5py.File]:
    """Write an HDF5 file of this package with :func:`mmnfn.utils.atomic_write`.

    Args:
        path: The file.
        size: Bytes of its large datasets.
    """
    with atomic_write(path, size + TABLES_BYTES) as temporary, h5py.File(temporary, 'w') as file:
        file.attrs['format_version'] = FORMAT_VERSION
        yield file


@contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing a file, by a lock on ``.NAME.lock`` beside it, which is removed at the end.

    The system gives the lock back when the process ends, however it ends.

    Args:
        path: The file.
        wait: Wait for a process that holds the lock, instead of raising an error.

    Raises:
        ValueError: If another process holds the lock.
    """
    name = path.with_name(f'.{path.name}.lock')
    name.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(name, 'w', encoding='utf-8') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise ValueError(
                    f'{path} is being written by another process. Wait for it, or choose another folder.'
                ) from error
            except OSError:  # a file system without locks
                pass
            if not name.exists() or not os.path.samestat(name.stat(), os.fstat(file.fileno())):
                continue  # the process that was waited for has removed it
            try:
                yield
            finally:
                name.unlink(missing_ok=True)
            return


def open_h5(path: Union[str, Path], what: str) -> h5py.File:
    """Open a file of this package for reading.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no HDF5 file, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{what} is missing: {path} does not exist. {REMEDY}')
    try:
        file = h5py.File(path, 'r')
    except OSError as error:
        raise ValueError(f'{path} ({what}) is no readable HDF5 file: {error}. {REMEDY}') from error
    version = file.attrs.get('format_version')
    if version != FORMAT_VERSION:
        file.close()
        raise ValueError(f'{path} ({what}) has version {version}, expected {FORMAT_VERSION}. {REMEDY}')
    return file


class ROIStore:
    """Read a ROI store, ``subj0N.h5``.

    Example:
        >>> store = ROIStore('data/nsd_store/subj01.h5')
        >>> voxels = store.roi('floc-faces')                              # (n,) columns
        >>> store.roi('FFA-1', hemisphere='lh'), store.roi('V1')          # labels; V1 = V1v and V1d
        >>> train = store.responses[store.split == 'train'][:, voxels]    # (images, n) float32
        >>> store.image_id[store.split == 'train']                        # (images,) 0-based 73k ids
        >>> store.noise_ceiling[voxels], store.coordinates[voxels]        # percent of variance; mm

    It can be pickled, and used in forked or spawned workers: the responses are memory maps.

    Args:
        path: The file.

    Attributes:
        subject: ``'subj0N'``.
        space: ``'func1pt8mm'`` or ``'fsaverage'``.
        image_id: (images,) 0-based 73k ids, ascending.
        photo_id: (images,) photograph that each was cut from; ``image_id`` where each is the only one of its.
        hemisphere: (V,) ``'lh'``, ``'rh'``, or ``''`` if unknown.
        split: (images,) ``'train'`` or ``'test'``.
        seen_by_all: (images,) bool, seen three times by every subject of the experiment.
        repeats: (images,) presentations that were averaged; 0 if unknown.
        coordinates: (V, 3) float32, mm.
        ncsnr: (V,) and noise_ceiling: (V,) percent of variance of the averaged test responses; NaN if unknown.
        prf: (V, 3) measured receptive fields: angle (degrees anticlockwise from the right), eccentricity and size (both
            in degrees of visual angle); NaN where none was found; None if the release had no maps of them.
        location: Where the voxels are: ``voxel`` (V, 3) indices into the volume and ``affine``, or ``vertex`` (V,) of
            the surface of the hemisphere.
        trial_row: (trials,) row of the image of each trial, and trial_session: (trials,) its session (1-based); None
            if the store holds no single trials.
        attributes: How the file was made.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no store of this version.
    """

    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)
        with open_h5(self.path, 'ROI store') as file:
            try:
                self._read(file)
            except (KeyError, OSError) as error:
                raise ValueError(f'{self.path} (ROI store) is damaged: {error}. {REMEDY}') from error
        self._maps = {}

    def _read(self, file: h5py.File) -> None:
        self.attributes = dict(file.attrs)
        self.subject, self.space = self.attributes['subject'], self.attributes['space']
        self.image_id, self.repeats = file['image_id'][()], file['repeats'][()]
        self.photo_id = file['photo_id'][()] if 'photo_id' in file else self.image_id
        self.split, self.seen_by_all = file['split'][()].astype(str), file['seen_by_all'][()]
        self.coordinates = file['coordinates'][()]
        self.ncsnr, self.noise_ceiling = file['ncsnr'][()], file['noise_ceiling'][()]
        self.prf = file['prf'][()] if 'prf' in file else None
        self.location = {name: file[name][()] for name in ('voxel', 'affine', 'vertex') if name in file}
        self.hemisphere = file['hemisphere'][()].astype(str)
        self._rois = {}
        for name, roi in file['roi'].items():
            numbers, labels = roi.attrs['numbers'].tolist(), roi.attrs['labels'].tolist()
            self._rois[name] = ROILabels(roi[()], dict(zip(numbers, labels)))
        self._places = {'responses': memory_place(file['responses'])}
        self.trial_row = self.trial_session = None
        if 'trials' in file:
            self.trial_row, self.trial_session = file['trials/row'][()], file['trials/session'][()]
            self._places['trials'] = memory_place(file['trials/responses'])

    def __getstate__(self):
        return {**self.__dict__, '_maps': {}}

    def _map(self, name: str) -> np.ndarray:
        if name not in self._maps:
            self._maps[name] = np.memmap(self.path, mode='r', **self._places[name])
        return self._maps[name]

    @property
    def responses(self) -> np.ndarray:
        """Map the averaged, z-scored responses (images, V) into memory; 0 where a voxel has no data."""
        return self._map('responses')

    @property
    def trial_responses(self) -> np.ndarray:
        """Map the single-trial responses (trials, V) into memory; NaN where a voxel has no data.

        Raises:
            ValueError: If the store holds none.
        """
        if self.trial_row is None:
            raise ValueError(f'{self.path} holds no single trials. Make it again with tools/prepare_nsd.py --trials.')
        return self._map('trials')

    @property
    def roi_classes(self) -> Tuple[str, ...]:
        """Name the ROI classes in the file."""
        return tuple(self._rois)

    def roi(self, name: str, label: Optional[str] = None, hemisphere: Optional[str] = None) -> np.ndarray:
        """Find the voxels of an ROI.

        Args:
            name: An ROI class (``'floc-faces'``), a label of one (``'FFA-1'``), or what the names of labels have in
                common: ``'FFA'`` is FFA-1 and FFA-2, ``'V1'`` is V1v and V1d. ``'HCP_MMP1/V1'`` says the class too;
                without it, labels of the six classes of the paper go before others. ``'lh.FFA'`` and ``'rh.FFA'`` are
                of one hemisphere.
            label: Only the voxels of the class ``name`` with this label.
            hemisphere: Only the voxels of ``'lh'`` or ``'rh'``.

        Returns:
            (n,) ascending indices; empty if the subject lacks the ROI.

        Raises:
            ValueError: If there is no such class or label, if labels of several classes have the name, or if the
                hemisphere of a voxel is not known.
        """
        full = name if label is None else f'{name}/{label}'
        if hemisphere is None and full.startswith(('lh.', 'rh.')) and full not in self._rois:
            hemisphere, full = full[:2], full[3:]
        chosen = self._chosen(full)
        if hemisphere is not None:
            if hemisphere not in HEMISPHERES:
                raise ValueError(f'hemisphere is {hemisphere!r}; it must be lh or rh.')
            unknown = (self.hemisphere[chosen] == '').sum()
            if unknown:
                raise ValueError(
                    f'{self.path} does not know the hemisphere of {unknown} voxel(s) of {full!r}: no lh. or rh. file '
                    'of its ROI classes had them. Take both hemispheres, or download these files and make it again.'
                )
            chosen = chosen & (self.hemisphere == hemisphere)
        return np.flatnonzero(chosen)

    def _chosen(self, name: str) -> np.ndarray:
        """Mark the voxels of a class or label (V,) bool, whichever their hemisphere."""
        if name in self._rois:
            return self._rois[name].values > 0
        roi_class, _, label = name.rpartition('/')
        rois = {key: roi for key, roi in self._rois.items() if roi_class in ('', key)}
        numbers = {key: _label_numbers(roi.names, label) for key, roi in rois.items()}
        owners = [key for key in rois if numbers[key]]
        owners = [key for key in owners if key in ROI_CLASSES] or owners
        if not owners:
            there = '; '.join(f'{key} ({_enumerate(roi.names)})' for key, roi in (rois or self._rois).items())
            raise ValueError(
                f'ROI {name!r} is not in {self.path}, which has {there}. Prepare the store with it, or choose another.'
            )
        if len(owners) > 1:
            ways = ' or '.join(f'{key}/{label}' for key in owners)
            raise ValueError(f'ROI {name!r} is in several classes of {self.path}. Write {ways}.')
        return np.isin(rois[owners[0]].values, numbers[owners[0]])


def _label_numbers(names: Dict[int, str], wanted: str) -> List[int]:
    """Find the labels of a name, or of its parts: ventral and dorsal (V1v, V1d), numbered (FFA-1, FFA-2)."""
    parts = re.compile(re.escape(wanted) + r'([vd]|-\d+)')
    exact = [k for k, name in names.items() if name == wanted]
    return exact or [k for k, name in names.items() if parts.fullmatch(name)]


def _enumerate(names: Dict[int, str]) -> str:
    """Put the names of a class into words, the first few if there are many."""
    found = list(names.values())
    return ', '.join(found) if len(found) <= 20 else f'{", ".join(found[:5])}, … {len(found)} labels'


def memory_place(dataset: h5py.Dataset) -> Dict:
    """Return the arguments of ``numpy.memmap`` for a contiguous dataset."""
    return dict(dtype=dataset.dtype, offset=dataset.id.get_offset(), shape=dataset.shape)
