"""From the NSD release tree to ROI stores: take out the voxels session by session, average the repeats, write.

The module is not called ``prepare`` because the function of that name would hide it in the package.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import List, Optional, Sequence, Union

import h5py
import numpy as np

from mmnfn.utils import atomic_write, progress_bar

from .betas import check_session, normalize_session, read_betas
from .design import NORMALIZATIONS, Presentations, read_presentations
from .images import open_stimuli, write_image_store
from .noise_ceiling import estimate_ncsnr, mixed_noise_ceiling
from .release import (
    HEMISPHERES,
    PRF_MAPS,
    ROI_CLASSES,
    TRIALS_PER_SESSION,
    NSDLayout,
    Voxels,
    parse_subjects,
    read_volume,
    roi_class_name,
    select_voxels,
)
from .store import ROIStore, StoreTables, atomic_h5, lock

VOXELS_PER_BLOCK = 2048
VOXELS_COMPARED = 1000
"""Evenly spaced, to tell sessions apart; the 750 betas of a single one would do, if it has data."""
MAX_NCSNR = 5
"""Of the 99th percentile of a map. An ncsnr of 5 would be a ceiling of 98.7 % for three repeats, which no voxel has;
ceilings in percent are above 5 wherever a brain answers to images."""


class Extraction:
    """Keep the raw betas of the wanted voxels, one file per session in a working folder.

    The name of a session's file ends with a digest of what it was made from (place in the tree, size and time of the
    beta file, the voxels), and the file gets its name when it is whole; so a killed run can go on with what it left.

    Raises:
        FileNotFoundError, ValueError: If a session's file is missing, or its header wrong.
    """

    def __init__(self, layout: NSDLayout, subject: str, sessions: Sequence[int], voxels: Voxels, folder: Path):
        self.subject, self.voxels = subject, voxels
        self.sources = {session: layout.session_file(subject, session) for session in sessions}
        self._files, self._seen = {}, {}
        place = voxels.shape, hashlib.sha256(voxels.index.astype('<i4')).hexdigest()
        for session, source in self.sources.items():
            check_session(source, voxels.shape)
            made_of = _fingerprint(layout, [source], *place)
            self._files[session] = folder / f'session{session:02d}-{made_of[:16]}.npy'
        for stale in set(folder.glob('session*')) - set(self._files.values()):
            stale.unlink()

    def run(self, progress: bool = True, position: int = 0) -> None:
        """Read the sessions that are missing; ValueError if one is damaged, or a copy of another one."""
        name = f'{self.subject} reading'
        for session in progress_bar(self.sources, desc=name, unit='session', position=position, show=progress):
            if not self._files[session].exists():
                betas = read_betas(self.sources[session], self.voxels.index, self.voxels.shape)
                with atomic_write(self._files[session], betas.nbytes) as temporary, open(temporary, 'wb') as file:
                    np.save(file, betas)
            self._refuse_copy(session)

    def _refuse_copy(self, session: int) -> None:
        """Raise a ValueError if some voxels have the same betas as in an earlier session."""
        some = self.read(session, slice(None, None, -(-len(self.voxels.index) // VOXELS_COMPARED)))
        earlier = self._seen.setdefault(hashlib.sha256(some).hexdigest(), session)
        if earlier != session:
            raise ValueError(
                f'{self.sources[earlier]} and {self.sources[session]} hold the same betas: one is a copy of the other '
                'under another number. Download both again.'
            )

    def read(self, session: int, voxels: slice) -> np.ndarray:
        """Read the (block, 750) int16 betas of some voxels in a session."""
        return np.array(np.load(self._files[session], mmap_mode='r')[voxels])


def _fingerprint(layout: NSDLayout, sources: Sequence[Path], *way: object) -> str:
    """Hash the source files, by place, size and time, and of how they are used."""
    found = [(os.path.relpath(path, layout.root), path.stat()) for path in sources if path.exists()]
    made_of = [(name, status.st_size, status.st_mtime_ns) for name, status in found]
    return hashlib.sha256(repr((made_of, *way)).encode()).hexdigest()


def average_repeats(
    extraction: Extraction, shown: Presentations, block: slice, trials: Optional[h5py.Dataset] = None
) -> np.ndarray:
    """Average the responses of a block of voxels to each image.

    Args:
        extraction: The raw betas.
        shown: The presentations.
        block: The voxels.
        trials: Dataset (trials, V) that gets the single-trial responses, NaN where there is no data.

    Returns:
        (images, block) float32; 0 where there is no data at all.
    """
    total = np.zeros((len(shown.image_id), block.stop - block.start), np.float32)
    count = np.zeros(total.shape, np.uint8)
    for position, session in enumerate(shown.sessions):
        part = shown.trials(position)
        reference = None if shown.reference is None else shown.reference[part]
        values = np.ascontiguousarray(normalize_session(extraction.read(session, block), reference).T)
        if trials is not None:
            trials[part, block] = values.astype(trials.dtype)  # HDF5's own conversion to float16 is wrong
        valid = ~np.isnan(values[0])  # a voxel has data in all trials of a session or in none
        values[:, ~valid] = 0
        for row, responses in zip(shown.rows[part], values):
            total[row] += responses
            count[row] += valid
    return total / np.maximum(count, 1)


def read_ncsnr(layout: NSDLayout, subject: str, voxels: Voxels, shown: Presentations) -> Optional[np.ndarray]:
    """Read the (V,) float32 ncsnr of the voxels, or return None where the map is absent and can be estimated.

    Raises:
        ValueError: If the map is damaged, of another shape, NaN in all voxels, or in percent; or if it is absent and no
            image was shown three times.
    """
    path = layout.ncsnr_file(subject)
    if path.exists():
        volume, _ = read_volume(path, 'ncsnr map')
        if volume.shape != voxels.shape:
            raise ValueError(
                f'{path} has shape {volume.shape}, but the ROI files have {voxels.shape}. They belong to '
                'different subjects or spaces; download them again.'
            )
        ncsnr = volume[tuple(voxels.index.T)]
        if not (ncsnr >= 0).any() or (ncsnr < 0).any():
            raise ValueError(f'{path} holds no ncsnr: NaN in all voxels, or negative. Download it again.')
        high = np.nanpercentile(volume, 99)
        if high > MAX_NCSNR:
            raise ValueError(
                f'{path}: the 99th percentile is {high:.3g}, but an ncsnr is hardly ever above 2. Does it hold noise '
                'ceilings in percent? Download it again.'
            )
        return ncsnr.astype(np.float32)
    if not (shown.repeats == 3).any():
        raise ValueError(
            f'{path} does not exist, and no image was shown three times in the {len(shown.sessions)} session(s) of '
            f'{subject}, so ncsnr cannot be estimated. Download the file, or use more sessions.'
        )
    return None


def read_prf(layout: NSDLayout, subject: str, voxels: Voxels) -> Optional[np.ndarray]:
    """Read the (V, 3) angle, eccentricity and size of the voxels' receptive fields; None if a map is absent.

    Raises:
        ValueError: If a map is damaged or of another shape.
    """
    paths = [layout.prf_file(subject, name) for name in PRF_MAPS]
    if not all(path.exists() for path in paths):
        return None
    columns = []
    for path in paths:
        volume, _ = read_volume(path, 'pRF map')
        if volume.shape != voxels.shape:
            raise ValueError(
                f'{path} has shape {volume.shape}, but the ROI files have {voxels.shape}. Download both again.'
            )
        columns.append(volume[tuple(voxels.index.T)])
    return np.stack(columns, 1).astype(np.float32)


def ncsnr_of_repeats(voxels: Voxels, shown: Presentations, extraction: Extraction) -> np.ndarray:
    """Estimate the (V,) float32 ncsnr from the images shown three times."""
    order = np.argsort(shown.rows, kind='stable')
    trials = order[shown.repeats[shown.rows[order]] == 3].reshape(-1, 3)
    everything = np.ones(TRIALS_PER_SESSION, bool)
    ncsnr = np.empty(len(voxels.index), np.float32)
    for block in _blocks(len(ncsnr), VOXELS_PER_BLOCK // 8):
        values = [normalize_session(extraction.read(session, block), everything) for session in shown.sessions]
        ncsnr[block] = estimate_ncsnr(np.concatenate(values, 1).T[trials])
    return ncsnr


def _blocks(count: int, size: int) -> List[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def prepare_subject(
    layout: NSDLayout,
    store: Union[str, Path],
    subject: str,
    roi_classes: Sequence[str] = ROI_CLASSES,
    max_sessions: Optional[int] = None,
    normalization: str = 'train',
    dtype: str = 'float32',
    trials: bool = False,
    progress: bool = True,
    position: int = 0,
) -> Path:
    """Write the ROI store of one subject.

    Betas are divided by 300, z-scored within each session with mean and std of the training trials, and averaged over
    the repeats of an image. The test split is the shared images, the training split all others. Memory stays below
    500 MB. A killed call goes on at the session it was in when it is made again, with what is kept in
    ``subj0N.partial`` until the store is complete; a store that was made of the same files in the same way is left as
    it is.

    Args:
        layout: The release tree.
        store: Folder of the stores.
        subject: ``'subj0N'``.
        roi_classes: ROI classes to keep, and paths of masks, see :func:`.release.select_voxels`.
        max_sessions: Use only the first sessions.
        normalization: Trials that give mean and std: ``'train'``, ``'all'``, or ``'none'`` for percent signal change.
        dtype: ``'float32'`` or ``'float16'``.
        trials: Keep the single-trial responses too (750·sessions rows).
        progress: Show progress bars.
        position: Line of the terminal for the bars.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError, ValueError: For missing or wrong input, naming file or argument.
        OSError: If the store cannot be written.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f'normalization is {normalization!r}; it must be one of {", ".join(NORMALIZATIONS)}.')
    if dtype not in ('float16', 'float32'):
        raise ValueError(f'dtype is {dtype!r}; it must be float16 or float32.')
    names = [roi_class_name(given) for given in roi_classes]
    if not names or len(set(names)) < len(names):
        raise ValueError(f'roi_classes is {list(roi_classes)}; name at least one ROI class, and each once.')
    if max_sessions is not None and max_sessions < 1:
        raise ValueError(f'max_sessions is {max_sessions}; it must be at least 1.')
    voxels = select_voxels(layout, subject, roi_classes)
    shown = read_presentations(layout, subject, max_sessions, normalization)
    ncsnr, ncsnr_source = read_ncsnr(layout, subject, voxels, shown), 'ncsnr.nii.gz'
    prf = read_prf(layout, subject, voxels)

    sources = [layout.design_file, *(layout.roi_file(subject, name) for name in roi_classes)]
    sources += [layout.session_file(subject, session) for session in shown.sessions]
    others = [layout.ncsnr_file(subject), layout.stim_info_file]  # which may be missing
    others += [layout.prf_file(subject, name) for name in PRF_MAPS]
    others += [layout.label_file(subject, name) for name in names]
    others += [file for side in HEMISPHERES for file in layout.hemisphere_files(subject, roi_classes, side)]
    way = layout.beta_version, names, normalization, dtype, trials
    recipe = _fingerprint(layout, [*sources, *others], *way)
    path, count, images = Path(store) / f'{subject}.h5', len(voxels.index), len(shown.image_id)
    folder = path.with_suffix('.partial')
    stored = (images + trials * len(shown.rows)) * count * np.dtype(dtype).itemsize
    earlier = earlier_store(path, 'func1pt8mm')
    with lock(path):
        if earlier is not None and earlier.attributes['recipe'] == recipe:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed when the store was complete
            return path
        folder.mkdir(exist_ok=True)
        try:
            extraction = Extraction(layout, subject, shown.sessions, voxels, folder)
            extraction.run(progress, position)
            if ncsnr is None:
                ncsnr = ncsnr_of_repeats(voxels, shown, extraction)
                ncsnr_source = f'estimated from {(shown.repeats == 3).sum()} images shown three times'
            with atomic_h5(path, stored) as file:
                responses = file.create_dataset('responses', (images, count), dtype)
                single = None
                if trials:
                    single = file.create_dataset('trials/responses', (len(shown.rows), count), dtype)
                    file['trials/row'] = shown.rows.astype(np.int32)
                    file['trials/session'] = np.repeat(shown.sessions, TRIALS_PER_SESSION).astype(np.int16)
                blocks, name = _blocks(count, VOXELS_PER_BLOCK), f'{subject} averaging'
                for block in progress_bar(blocks, desc=name, unit='block', position=position, show=progress):
                    responses[:, block] = average_repeats(extraction, shown, block, single).astype(dtype)
                StoreTables(
                    subject=subject,
                    image_id=shown.image_id,
                    repeats=shown.repeats,
                    is_test=shown.is_test,
                    seen_by_all=shown.seen_by_all,
                    coordinates=voxels.coordinates,
                    rois=voxels.rois,
                    hemisphere=voxels.hemisphere,
                    ncsnr=ncsnr,
                    noise_ceiling=mixed_noise_ceiling(ncsnr, shown.repeats[shown.is_test]),
                    location=dict(voxel=voxels.index.astype(np.int16), affine=voxels.affine),
                    attributes=dict(
                        beta_version=layout.beta_version,
                        normalization=normalization,
                        sessions=shown.sessions,
                        space='func1pt8mm',
                        volume_shape=voxels.shape,
                        ncsnr_source=ncsnr_source,
                        split_rule='test = shared images',
                        recipe=recipe,
                        sources=[f'{os.path.relpath(file, layout.root)} {file.stat().st_size}' for file in sources],
                    ),
                    photo_id=shown.photo_id,
                    prf=prf,
                ).write(file)
            shutil.rmtree(folder)
        finally:
            if folder.exists() and not any(folder.glob('session*')):
                shutil.rmtree(folder)
    return path


def earlier_store(path: Path, space: str) -> Optional[ROIStore]:
    """Open the store that is there already, or return None; ValueError if it is of another space."""
    try:
        store = ROIStore(path)
    except (FileNotFoundError, ValueError):  # there is none of this version
        return None
    if store.space != space:
        raise ValueError(
            f'{path} is a store of {store.space}, and this would replace it by one of {space}. Choose another folder.'
        )
    return store


def prepare(
    release: Union[str, Path, NSDLayout],
    store: Union[str, Path],
    subjects: Optional[Sequence[Union[int, str]]] = None,
    image_size: Optional[int] = None,
    workers: int = 1,
    **options,
) -> List[Path]:
    """Write the stores of several subjects and, with ``image_size``, their images.

    Example:
        >>> prepare('data/nsd', 'data/nsd_store', subjects=[1, 2], image_size=224)

    Args:
        release: The release tree, or its folder (then with the betas of version b3).
        store: Folder of the stores.
        subjects: Subjects; None for all that have betas.
        image_size: Side of the images in ``images_<size>.h5``, which keeps those of other subjects that are in it; None
            for no images.
        workers: Processes, each working on one subject at a time.
        **options: See :func:`prepare_subject`.

    Returns:
        Paths of the files.

    Raises:
        FileNotFoundError, ValueError, OSError: See :func:`prepare_subject`; stores that were complete by then stay.
    """
    layout = release if isinstance(release, NSDLayout) else NSDLayout(release)
    names = layout.subjects() if subjects is None else parse_subjects(subjects)
    if not names:
        raise FileNotFoundError(
            f'{layout.root} holds no {layout.beta_version} betas of any subject. Choose another --beta-version, or '
            'download nsddata_betas/.'
        )
    if workers < 1:
        raise ValueError(f'workers is {workers}; it must be at least 1.')
    if image_size is not None:
        stimuli = open_stimuli(layout.stimuli_file)  # complain before hours of reading
    if workers == 1:
        paths = [prepare_subject(layout, store, name, **options) for name in names]
    else:  # spawn: a fork of a process whose libraries have started threads can hang
        with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
            futures = [
                pool.submit(prepare_subject, layout, store, name, position=line, **options)
                for line, name in enumerate(names)
            ]
            paths = [future.result() for future in futures]
    if image_size is not None:
        image_ids = np.concatenate([ROIStore(path).image_id for path in paths])
        if image_ids.max() >= stimuli.count:
            raise ValueError(f'{stimuli.path} holds {stimuli.count} images, but 73k id {image_ids.max()} is wanted.')
        status = stimuli.path.stat()
        source = f'{stimuli.path.name} {status.st_size} {status.st_mtime_ns}'
        progress = options.get('progress', True)
        paths.append(write_image_store(store, image_ids, image_size, stimuli.__getitem__, source, progress))
    return paths
