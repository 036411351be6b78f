"""From the NSD release tree to ROI stores."""

from __future__ import annotations

import hashlib
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import h5py
import numpy as np

from mmnfn.utils import progress_bar

from .averaging import VOXELS_PER_BLOCK, average_repeats, ncsnr_of_repeats, read_ncsnr
from .extraction import Extraction, extraction_bytes, working_folder
from .images import open_stimuli, write_image_store
from .noise_ceiling import mixed_noise_ceiling
from .presentations import NORMALIZATIONS, read_presentations
from .release import ROI_CLASSES, TRIALS_PER_SESSION, NSDLayout
from .store import ROIStore, StoreTables, atomic_h5
from .voxels import select_voxels


def prepare_subject(
    layout: NSDLayout,
    store: Path,
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

    Betas are divided by 300, z-scored within each session with mean and deviation of the training trials, and
    averaged over the repeats of an image. The test split is the shared images, the training split all others. Memory
    stays below 500 MB; a killed call goes on at the session it was in when it is made again, and a store that was
    made of the same files in the same way is left as it is.

    Args:
        layout: The release tree.
        store: Folder of the stores.
        subject: ``'subj0N'``.
        roi_classes: ROI classes to keep.
        max_sessions: Use only the first sessions.
        normalization: Trials that mean and deviation come from: ``'train'``, ``'all'``, or ``'none'`` for percent
            signal change.
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
    if not roi_classes or len(set(roi_classes)) < len(roi_classes):
        raise ValueError(f'roi_classes is {list(roi_classes)}; name at least one ROI class, and each once.')
    if max_sessions is not None and max_sessions < 1:
        raise ValueError(f'max_sessions is {max_sessions}; it must be at least 1.')
    voxels = select_voxels(layout, subject, roi_classes)
    shown = read_presentations(layout, subject, max_sessions, normalization)
    ncsnr, ncsnr_source = read_ncsnr(layout, subject, voxels, shown), 'ncsnr.nii.gz'

    sources = [layout.design_file, *(layout.roi_file(subject, name) for name in roi_classes)]
    sources += [layout.session_file(subject, session) for session in shown.sessions]
    way = dict(rois=list(roi_classes), normalization=normalization, dtype=dtype, trials=trials)
    if (shown.photo_id != shown.image_id).any():
        way['photo_id'] = shown.photo_id.tolist()
    recipe = _recipe(layout, [*sources, layout.beta_dir(subject) / 'ncsnr.nii.gz'], way)
    path, count = Path(store) / f'{subject}.h5', len(voxels.index)
    refuse_other_space(path, 'func1pt8mm')
    if _made_by(path) == recipe:
        if path.with_suffix('.partial').exists():  # of a run that was killed when the store was complete
            with working_folder(path, 0):
                pass
        return path
    rows = len(shown.image_id) + (len(shown.rows) if trials else 0)
    needed = extraction_bytes(count, len(shown.sessions)) + rows * count * np.dtype(dtype).itemsize
    with working_folder(path, needed) as folder:
        extraction = Extraction(layout, subject, shown.sessions, voxels.index, voxels.shape, folder)
        extraction.run(progress, position)
        if ncsnr is None:
            ncsnr = ncsnr_of_repeats(voxels, shown, extraction)
            ncsnr_source = f'estimated from {(shown.repeats == 3).sum()} images shown three times'
        with atomic_h5(path, rows * count * np.dtype(dtype).itemsize) as file:
            responses = file.create_dataset('responses', (len(shown.image_id), count), dtype)
            single = None
            if trials:
                single = file.create_dataset('trials/responses', (len(shown.rows), count), dtype)
                file['trials/row'] = shown.rows.astype(np.int32)
                file['trials/session'] = np.repeat(shown.sessions, TRIALS_PER_SESSION).astype(np.int16)
            invalid = saturated = 0
            with progress_bar(
                total=count,
                desc=f'{subject} averaging',
                unit='voxel',
                unit_scale=True,
                position=position,
                show=progress,
            ) as bar:
                for start in range(0, count, VOXELS_PER_BLOCK):
                    block = slice(start, min(start + VOXELS_PER_BLOCK, count))
                    values, bad, clipped = average_repeats(extraction, shown, block, single)
                    responses[:, block] = values.astype(dtype)  # HDF5's own conversion to float16 is wrong
                    invalid, saturated = invalid + bad, saturated + clipped
                    bar.update(block.stop - block.start)
            StoreTables(
                subject=subject,
                image_id=shown.image_id,
                repeats=shown.repeats,
                is_test=shown.is_test,
                seen_by_all=shown.seen_by_all,
                coordinates=voxels.coordinates,
                rois=voxels.rois,
                ncsnr=ncsnr,
                noise_ceiling=mixed_noise_ceiling(ncsnr, shown.repeats[shown.is_test]),
                location=dict(voxel=voxels.index.astype(np.int16), affine=voxels.affine),
                attributes=dict(
                    beta_version=layout.beta_version,
                    normalization=normalization,
                    sessions=shown.sessions,
                    space='func1pt8mm',
                    volume_shape=voxels.shape,
                    invalid_voxel_sessions=invalid,
                    saturated_values=saturated,
                    ncsnr_source=ncsnr_source,
                    split_rule='test = shared images',
                    recipe=recipe,
                    sources=[f'{source.relative_to(layout.root)} {source.stat().st_size}' for source in sources],
                ),
                photo_id=shown.photo_id,
            ).write(file)
    return path


def _recipe(layout: NSDLayout, sources: Sequence[Path], way: Dict[str, object]) -> str:
    """Digest of the files that a store is made of, by place, size and time, and of how it is made."""
    status = [(path.relative_to(layout.root).as_posix(), path.stat()) for path in sources if path.exists()]
    made_of = [(name, found.st_size, found.st_mtime_ns) for name, found in status]
    return hashlib.sha256(repr((made_of, layout.beta_version, sorted(way.items()))).encode()).hexdigest()


def _made_by(path: Path) -> Optional[str]:
    """Recipe of a whole store; None where there is none."""
    try:
        return ROIStore(path).attributes.get('recipe')
    except (FileNotFoundError, ValueError):
        return None


def prepare(
    layout: NSDLayout,
    store: Path,
    subjects: Sequence[str],
    image_size: Optional[int] = None,
    workers: int = 1,
    **kwargs,
) -> List[Path]:
    """Write the stores of several subjects and, with ``image_size``, their pictures.

    Args:
        layout: The release tree.
        store: Folder of the stores.
        subjects: Subjects.
        image_size: Side of the pictures in ``images_<size>.h5``, to which those of other subjects that are in it
            belong as before; None for none.
        workers: Processes, each working on one subject at a time.
        **kwargs: See :func:`prepare_subject`.

    Returns:
        Paths of the files.

    Raises:
        FileNotFoundError, ValueError, OSError: See :func:`prepare_subject`; stores that were complete by then stay.
    """
    if workers < 1:
        raise ValueError(f'workers is {workers}; it must be at least 1.')
    if image_size is not None:
        open_stimuli(layout.stimuli_file)  # complain before hours of reading
    jobs: Dict[str, dict] = {name: dict(kwargs, position=k if workers > 1 else 0) for k, name in enumerate(subjects)}
    if workers == 1:
        paths = [prepare_subject(layout, store, name, **options) for name, options in jobs.items()]
    else:  # spawn: a fork of a process whose libraries have started threads can hang
        with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
            futures = {
                pool.submit(prepare_subject, layout, store, name, **options): name for name, options in jobs.items()
            }
            for future in as_completed(futures):
                if future.exception() is not None:  # said now: the others may take hours
                    warnings.warn(f'{futures[future]} failed, the others go on: {future.exception()}', stacklevel=2)
            paths = [future.result() for future in futures]
    if image_size is not None:
        ids = []
        for path in paths:
            with h5py.File(path, 'r') as file:
                ids.append(file['image_id'][()])
        paths.append(
            write_image_store(layout.stimuli_file, store, np.concatenate(ids), image_size, kwargs.get('progress', True))
        )
    return paths


def refuse_other_space(path: Path, space: str) -> None:
    """Raise a ValueError if a whole store of another space would be replaced."""
    try:
        found = ROIStore(path).space
    except (OSError, ValueError):  # there is none, or it is of no use
        return
    if found != space:
        raise ValueError(
            f'{path} is a store of {found}, and this would replace it by one of {space}. Choose another folder.'
        )
