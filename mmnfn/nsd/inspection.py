"""What is in an NSD release tree, what is missing, and what can be done with it.

The verdicts come from the readers that the preparation uses; of the session files only the heads are read.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import h5py
import numpy as np
import pandas as pd

from .betas import check_session
from .design import Design, check_responses, read_design, read_presentations, read_stim_info
from .inspection_report import Betas, CommonFile, Obstacle, Report, RoiClass, Subject
from .inspection_uses import possible_uses, session_paths
from .preparation import read_ncsnr
from .release import (
    BETA_VERSIONS,
    FULL_SESSIONS,
    ROI_CLASSES,
    SUBJECT_SHAPES,
    TRIALS_PER_SESSION,
    NSDLayout,
    Voxels,
    parse_subjects,
    read_volume,
    select_voxels,
)


def inspect(
    root: Union[str, Path],
    subjects: Optional[Sequence[Union[int, str]]] = None,
    versions: Optional[Sequence[str]] = None,
) -> Report:
    """Look at a release tree.

    Args:
        root: The folder that holds ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
        subjects: Subjects, as numbers or names; all that the tree has anything of if None.
        versions: ``'b1'``, ``'b2'``, ``'b3'``; all that the tree has betas of if None.

    Returns:
        The report; a damaged file is one of its problems.

    Raises:
        FileNotFoundError: If ``root`` is no release tree.
        ValueError: If a subject or version is unknown, or given twice.
    """
    layouts = {version: NSDLayout(root, version) for version in versions or BETA_VERSIONS}
    if versions is None:
        layouts = {v: layout for v, layout in layouts.items() if layout.subjects()} or {'b3': layouts['b3']}
    elif len(layouts) < len(versions):
        raise ValueError(f'versions has repetitions: {", ".join(versions)}.')
    layout = next(iter(layouts.values()))
    if subjects is None:
        folders = [layout.root / 'nsddata/ppdata', layout.root / 'nsddata_betas/ppdata']
        names = [name for name in SUBJECT_SHAPES if any((folder / name).is_dir() for folder in folders)]
    else:
        names = parse_subjects(subjects)
    report = Report(layout.root, tuple(layouts))
    design = _design(layout, report)
    for name in names:
        subject, voxels, shape = _anatomy(layout, name, report)
        for version, versioned in layouts.items():
            subject.betas[version] = _betas(versioned, name, design, shape, report)
            _ncsnr(versioned, name, subject.betas[version], voxels, report)
        report.subjects.append(subject)
    seen = [betas.image_id for subject in report.subjects for betas in subject.betas.values()]
    seen_ids = np.unique(np.concatenate([np.empty(0, int), *(ids for ids in seen if ids is not None)]))
    _stim_info(layout, seen_ids, report)
    _stimuli(layout, seen_ids, report)
    report.uses = possible_uses(report, layouts, design)
    return report


def _state(obstacles: List[Obstacle]) -> str:
    """In words: ``'present'``, ``'missing'`` or ``'problem N'``."""
    if not obstacles:
        return 'present'
    return 'missing' if obstacles[0].files else obstacles[0].reason


def _anatomy(layout: NSDLayout, name: str, report: Report) -> Tuple[Subject, Optional[Voxels], Tuple[int, int, int]]:
    """ROIs, brain mask, valid maps and trials of a subject.

    Returns:
        What was found; the voxels of the ROI classes that can be read; the shape (X, Y, Z) of the subject's volumes.
    """
    subject, voxels, shape = Subject(name), None, SUBJECT_SHAPES[name]
    layout = NSDLayout(layout.root, layout.beta_version)
    layout.roi = functools.lru_cache(maxsize=None)(layout.roi)  # select_voxels asks for the same again
    for roi in ROI_CLASSES:
        file, table = layout.roi_file(name, roi), layout.label_file(name, roi)
        found, obstacles = report.attempt([file, table], _roi_class, layout, name, roi)
        subject.rois[roi] = found
        no_table = file.exists() and not table.exists()
        subject.roi_states[roi] = 'no label table' if no_table else _state(obstacles)
        subject.obstacles += obstacles
    readable = [roi for roi, found in subject.rois.items() if found is not None]
    if len(readable) == len(ROI_CLASSES) or any(subject.rois[roi].voxels for roi in readable):
        files = [layout.roi_file(name, roi) for roi in readable]
        voxels, obstacles = report.attempt(files, select_voxels, layout, name, readable)
        subject.obstacles += obstacles
    subject.other_rois = tuple(stem for stem in layout.roi_classes(name) if stem not in ROI_CLASSES)

    mask = layout.anatomy_dir(name) / 'brainmask.nii.gz'
    volume, obstacles = report.attempt([mask], read_volume, mask, 'brain mask')
    subject.brain = int((volume[0] > 0).sum()) if volume is not None else _state(obstacles)
    if volume is not None:
        shape = volume[0].shape
    if voxels is not None:
        subject.union = len(voxels.index)
        if shape != voxels.shape and volume is not None:
            report.problem(f'{mask} has shape {shape}, but the ROI files have {voxels.shape}. Download it again.')
        shape = voxels.shape
    sessions = range(1, FULL_SESSIONS[name] + 1)
    subject.valid_maps = sum(layout.valid_file(name, session).exists() for session in sessions)
    table = layout.responses_file(name)
    rows, obstacles = report.attempt([table], _count_trials, table)
    subject.response_trials = rows if rows is not None else _state(obstacles)
    return subject, voxels, shape


def _roi_class(layout: NSDLayout, subject: str, name: str) -> RoiClass:
    counts = np.bincount(np.maximum(layout.roi(subject, name)[0], 0).ravel())
    present, empty = [], []
    for index, label in sorted(layout.labels(subject, name).items()):
        (present if index < len(counts) and counts[index] else empty).append(label)
    return RoiClass(int(counts[1:].sum()), tuple(present), tuple(empty))


def _count_trials(path: Path) -> int:
    check_responses(path, np.empty(0, int))  # for its errors
    return len(pd.read_csv(path, sep='\t', usecols=['73KID']))


def _betas(
    layout: NSDLayout, subject: str, design: Optional[Design], shape: Tuple[int, int, int], report: Report
) -> Betas:
    """Sessions of a subject and version: which there are, whether their heads are sound, and what they showed."""
    folder = layout.beta_dir(subject)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    sessions: Dict[str, Tuple[int, ...]] = {
        suffix: tuple(s for s in range(100) if f'betas_session{s:02d}.{suffix}' in names)
        for suffix in ('hdf5', 'nii.gz')
    }
    planned = FULL_SESSIONS[subject]
    if design is not None:
        planned = design.full_sessions().get(subject, planned)
    betas = Betas(sessions['hdf5'], sessions['nii.gz'], planned)
    if not betas.sessions:
        first = layout.beta_file(subject, 1)
        betas.obstacles.append(Obstacle(f'no session of {layout.beta_version} betas', (report.relative(first),)))
        return betas
    _, obstacles = report.attempt([folder], layout.sessions, subject)
    if betas.gaps:
        numbers = ', '.join(map(str, betas.gaps))
        files = session_paths(report, layout, subject, betas.gaps, betas.suffix)
        betas.obstacles.append(Obstacle(f'session(s) {numbers} missing ({obstacles[0].reason})', files))
    else:
        betas.obstacles += obstacles
    _heads(layout, subject, betas, shape, report)
    if design is None:
        betas.obstacles += report.common['design'].obstacles
        return betas
    if obstacles and not betas.gaps:  # they may be another subject's
        return betas
    last = betas.sessions[-1]
    trials, obstacles = report.attempt([layout.design_file], design.trials, subject, last)
    if trials is None:
        betas.obstacles += obstacles
        return betas
    at_hand = np.isin(np.arange(last * TRIALS_PER_SESSION) // TRIALS_PER_SESSION + 1, betas.sessions)
    betas.image_id, betas.shared = trials[0][at_hand], trials[1][at_hand]
    table = layout.responses_file(subject)
    if table.exists():
        betas.obstacles += report.attempt([table], check_responses, table, trials[0])[1]
    if not betas.obstacles:
        shown, betas.obstacles = report.attempt([folder], read_presentations, layout, subject, None, 'train')
        betas.seen_by_all = None if shown is None else int(shown.seen_by_all.sum())
    return betas


def _heads(layout: NSDLayout, subject: str, betas: Betas, shape: Tuple[int, int, int], report: Report) -> None:
    """Check the heads of the session files, and note how they are read."""
    for session in betas.sessions:
        path = layout.session_file(subject, session)
        with warnings.catch_warnings(record=True) as slow:
            warnings.simplefilter('always')
            obstacles = report.attempt([path], check_session, path, shape)[1]
        betas.obstacles += obstacles
        if obstacles:
            continue
        reading = 'one chunk per voxel'
        if path.name.endswith('.nii.gz'):
            reading = f'slow: session {session} is NIfTI, which is unpacked whole'
        elif slow:
            with h5py.File(path, 'r') as file:
                chunks, compression = file['betas'].chunks, file['betas'].compression
            reading = f'slow: session {session} has chunks {chunks}, compression {compression}'
        if not betas.reading.startswith('slow'):
            betas.reading = reading


def _ncsnr(layout: NSDLayout, subject: str, betas: Betas, voxels: Optional[Voxels], report: Report) -> None:
    """Whether ncsnr can be read or, from images shown three times, estimated."""
    path = layout.beta_dir(subject) / 'ncsnr.nii.gz'
    betas.has_ncsnr = path.exists()
    if betas.has_ncsnr and voxels is not None:
        _, betas.ncsnr_obstacles = report.attempt([path], read_ncsnr, layout, subject, voxels, None)
    elif betas.has_ncsnr:
        _, betas.ncsnr_obstacles = report.attempt([path], read_volume, path, 'ncsnr map')
    elif not betas.images(times=3):
        reason = 'ncsnr.nii.gz missing, and no image known to be shown three times in the sessions at hand'
        betas.ncsnr_obstacles = [Obstacle(reason, (report.relative(path),))]


def _design(layout: NSDLayout, report: Report) -> Optional[Design]:
    path = layout.design_file
    design, obstacles = report.attempt([path], read_design, path)
    file = CommonFile('design', report.relative(path), _state(obstacles), obstacles=obstacles)
    if design is not None:
        images = design.own.shape[1]
        file.detail = f'{len(design.order)} trials, {images} images per subject, {design.shared} of them shared'
    report.common['design'] = file
    return design


def _stim_info(layout: NSDLayout, seen: np.ndarray, report: Report) -> None:
    path = layout.stim_info_file
    table, obstacles = report.attempt([path], read_stim_info, path, ('nsdId', 'cocoId', 'cocoSplit'))
    if table is not None:
        if seen.size and seen[-1] >= len(table):
            message = f'{path} lacks nsdId (0-based) {seen[-1]}, which was shown. Download it again.'
            obstacles = [report.problem(message)]
    state, detail = _state(obstacles), '' if table is None else f'{len(table)} stimuli'
    report.common['stim_info'] = CommonFile('stimulus table', report.relative(path), state, detail, obstacles)


def _stimuli(layout: NSDLayout, seen: np.ndarray, report: Report) -> None:
    path = layout.stimuli_file
    found, obstacles = report.attempt([path], _check_stimuli, path, seen)
    state = _state(obstacles)
    report.common['stimuli'] = CommonFile('stimuli', report.relative(path), state, found or '', obstacles)


def _check_stimuli(path: Path, seen: np.ndarray) -> str:
    try:
        with h5py.File(path, 'r') as file:
            pictures = file['imgBrick']
            shape, dtype, chunks = pictures.shape, pictures.dtype, pictures.chunks
    except Exception as error:  # HDF5 raises many kinds for a damaged file
        raise ValueError(f'{path} is no readable HDF5 file: {error}. Download it again.') from error
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or dtype != np.uint8:
        raise ValueError(f'{path}: imgBrick is {dtype} {shape}, expected uint8 (images, size, size, 3).')
    if seen.size and seen[-1] >= shape[0]:
        raise ValueError(f'{path} holds {shape[0]} pictures, but 73k id {seen[-1]} (0-based) was shown.')
    return f'{dtype} {shape}, chunks {chunks}, {path.stat().st_size / 1e9:.2f} GB'
