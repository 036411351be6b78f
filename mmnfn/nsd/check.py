"""Check a release tree, and a store against the release it was made from.

The verdicts on a tree come from the readers that the preparation uses; of the session files only the headers are read.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import h5py
import nibabel as nib
import numpy as np
import pandas as pd

from .betas import check_session
from .design import read_design, read_presentations, read_stim_info
from .images import open_stimuli
from .preparation import read_ncsnr
from .release import (
    BETA_SCALE,
    BETA_VERSIONS,
    FULL_SESSIONS,
    HEMISPHERES,
    ROI_CLASSES,
    SUBJECT_SHAPES,
    TRIALS_PER_SESSION,
    NSDLayout,
    parse_subjects,
    read_volume,
    select_voxels,
)
from .store import ROIStore

TOLERANCE = {'float32': 2e-4, 'float16': 4e-3}
COCO_COLUMNS = ('nsdId', 'cocoId', 'cocoSplit')
PRETRAINING_SUBJECTS = [f'subj{n:02d}' for n in range(1, 8)]
"""Subjects that configs/nfn train on."""
HELD_OUT_SUBJECT = 'subj08'
"""Subject that configs/encoding predict."""


class Use(NamedTuple):
    """Describe something that can be done with a release tree, or not.

    Attributes:
        name: E.g. ``'ROI store'``.
        of: Version and subject, e.g. ``'b3 subj01'``; empty for the whole tree.
        possible: Whether it can be done.
        reason: Why not, or how.
        missing: Paths, relative to the root, of the files to download for it.
    """

    name: str
    of: str
    possible: bool
    reason: str = ''
    missing: Tuple[str, ...] = ()


class Found(NamedTuple):
    """Hold what a reader returned, or None; why in words; and the files that are missing."""

    value: Any
    reason: str = ''
    missing: Tuple[str, ...] = ()


class Report:
    """Collect what is in a release tree.

    Args:
        root: The tree.

    Attributes:
        table: What there is of each subject: part → subject → number or words.
        common: What there is of the files for all subjects: part → words.
        uses: What can be done.
        problems: One message for each file that is not as it should be. A missing file is no problem.
        notes: Warnings of the readers, e.g. of files that are read slowly.
    """

    def __init__(self, root: Path):
        self.root = root
        self.table: Dict[str, Dict[str, Any]] = {}
        self.common: Dict[str, str] = {}
        self.uses: List[Use] = []
        self.problems: List[str] = []
        self.notes: List[str] = []

    def read(self, files: Sequence[Path], reader: Callable, *args: Any) -> Found:
        """Call a reader if the files that it needs are there; note as a problem what it cannot use."""
        missing = tuple(file.relative_to(self.root).as_posix() for file in files if not file.exists())
        if missing:
            return Found(None, f'{", ".join(Path(file).name for file in missing)} missing', missing)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter('always')
                value = reader(*args)
            self.notes += [str(w.message) for w in caught if str(w.message) not in self.notes]
            return Found(value)
        except FileNotFoundError as error:  # a file that is not among those above
            return Found(None, str(error).replace(f'{self.root}/', ''))
        except (ValueError, OSError) as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return Found(None, f'problem {self.problems.index(str(error)) + 1}')

    def put(self, row: str, subject: str, value: Any) -> None:
        """Enter a number or words into the table."""
        self.table.setdefault(row, {})[subject] = value

    def judge(self, name: str, of: str, parts: Sequence[Found], how: str = '') -> bool:
        """Add a use that needs some parts; True if it is possible."""
        lacking = [part for part in parts if part.reason]
        reason = '; '.join(dict.fromkeys(part.reason for part in lacking)) or how
        missing = tuple(dict.fromkeys(file for part in lacking for file in part.missing))
        self.uses.append(Use(name, of, not lacking, reason, missing))
        return not lacking

    def __str__(self) -> str:
        table = (
            pd.DataFrame.from_dict(self.table, orient='index').fillna('-').to_string() if self.table else 'no subject'
        )
        lines = [f'What is in {self.root}', table, *(f'{name}: {found}' for name, found in self.common.items())]
        lines += ['', 'What can be done']
        for use in self.uses:
            line = f'{"yes" if use.possible else "no":<4}{use.name}'
            line += f' ({use.of})' if use.of else ''
            lines.append(line + (f': {use.reason}' if use.reason else ''))
            lines += [f'      download {file}' for file in use.missing]
        for title, found in (('Problems', self.problems), ('Notes', self.notes)):
            if found:
                lines += ['', title, *(f'{number}. {text}' for number, text in enumerate(found, 1))]
        return '\n'.join(lines)


def inspect(
    root: Union[str, Path], subjects: Optional[Sequence[Union[int, str]]] = None, version: Optional[str] = None
) -> Report:
    """Look at a release tree.

    Args:
        root: The folder that holds ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
        subjects: Subjects, as numbers or names; all that the tree has anything of if None.
        version: ``'b1'``, ``'b2'`` or ``'b3'``; all that the tree has betas of if None.

    Returns:
        The report; a damaged file is one of its problems, and hides nothing of the others.

    Raises:
        FileNotFoundError: If ``root`` is no release tree.
        ValueError: If a subject or version is unknown.
    """
    layouts = [NSDLayout(root, name) for name in ([version] if version else BETA_VERSIONS)]
    if version is None:
        layouts = [layout for layout in layouts if layout.subjects()] or [NSDLayout(root)]
    layout = layouts[0]
    if subjects is None:
        folders = [layout.root / 'nsddata/ppdata', layout.root / 'nsddata_betas/ppdata']
        subjects = [name for name in SUBJECT_SHAPES if any((folder / name).is_dir() for folder in folders)]
    names = parse_subjects(subjects)
    report = Report(layout.root)
    design = report.read([layout.design_file], read_design, layout.design_file)
    table = report.read([layout.stim_info_file], read_stim_info, layout.stim_info_file, COCO_COLUMNS)
    stimuli = report.read([layout.stimuli_file], open_stimuli, layout.stimuli_file)
    report.common = {
        'design': design.reason or f'{len(design.value.order)} trials, {design.value.shared} shared images',
        'stimulus table': table.reason or f'{len(table.value)} stimuli',
        'stimuli': stimuli.reason or f'{stimuli.value.count} images of {stimuli.value.size} pixels',
    }
    voxels = {name: _voxels(report, layout, name) for name in names}
    for layout in layouts:
        version = layout.beta_version
        made = [name for name in names if _roi_store(report, layout, name, voxels[name], design)]
        stores, how = Found(None, '' if made else 'no ROI store can be made'), ''
        if made[:7] != PRETRAINING_SUBJECTS:
            how = f'set subjects = {[int(name[4:]) for name in made]} in configs/_base_/datasets/nsd.py'
        report.judge('pretraining and retrieval', version, [stimuli, stores], how)
        stores, how = Found(None, '' if len(made) > 1 else 'it needs ROI stores of two subjects'), ''
        if HELD_OUT_SUBJECT not in made:
            how = 'set the held-out subject in configs/_base_/datasets/nsd_encoding.py'
        report.judge('encoding of a held-out subject', version, [stimuli, stores], how)
    captions = 'captions also need annotations_trainval2017.zip from cocodataset.org'
    report.judge('COCO overlap and captions', '', [table], captions)
    return report


def _voxels(report: Report, layout: NSDLayout, subject: str) -> List[Found]:
    """Read the ROI classes of a subject: the volume's shape of each, and then the voxels of all, None if one lacks."""
    parts = []
    for name in ROI_CLASSES:
        files = [layout.roi_file(subject, name), layout.label_file(subject, name)]
        part = report.read(files, layout.roi, subject, name)
        report.put(name, subject, part.reason or f'{(part.value[0] > 0).sum()} voxels')
        if not part.reason:
            labels, part = part.value[0], Found(part.value[0].shape)
            for k, label in layout.labels(subject, name).items():
                report.put(f'{name}/{label}', subject, (labels == k).sum())
        parts.append(part)
    if any(part.reason for part in parts):
        return [*parts, Found(None)]
    voxels = report.read([], select_voxels, layout, subject, ROI_CLASSES)
    report.put('voxels in any of them', subject, voxels.reason or len(voxels.value.index))
    if not voxels.reason:
        sides = [(voxels.value.hemisphere == side).sum() for side in HEMISPHERES]
        report.put('left and right', subject, '{}, {}'.format(*sides) if any(sides) else 'lh. and rh. files missing')
    return [*parts, voxels]


def _roi_store(report: Report, layout: NSDLayout, subject: str, rois: List[Found], design: Found) -> bool:
    """Look at the betas of a subject, and judge whether its ROI store can be made."""
    version, voxels = layout.beta_version, rois[-1].value
    sessions = report.read([layout.beta_dir(subject)], layout.sessions, subject)
    shown, headers, ncsnr = sessions, [], Found(None)
    if not sessions.reason:
        shown = report.read([layout.design_file], read_presentations, layout, subject, None, 'train')
        shape = next((part.value for part in rois[:-1] if part.value), SUBJECT_SHAPES[subject])
        headers = [
            report.read([], check_session, layout.session_file(subject, session), shape) for session in sessions.value
        ]
    planned = FULL_SESSIONS[subject] if design.reason else design.value.full_sessions().get(subject)
    report.put(f'{version} sessions', subject, sessions.reason or f'{len(sessions.value)} of {planned}')
    if not shown.reason:
        thrice, test = shown.value.repeats == 3, shown.value.is_test
        report.put(f'{version} images', subject, f'{len(test)}, {test.sum()} of them shared')
        report.put(f'{version} seen three times', subject, f'{thrice.sum()}, {(thrice & test).sum()} of them shared')
        report.put(f'{version} seen three times by all subjects', subject, shown.value.seen_by_all.sum())
        file = layout.ncsnr_file(subject)
        if voxels is not None:
            files = [] if thrice.any() else [file]
            ncsnr = report.read(files, read_ncsnr, layout, subject, voxels, shown.value)
        source = 'ncsnr.nii.gz' if file.exists() else f'estimated from {thrice.sum()} images seen three times'
        report.put(f'{version} ncsnr', subject, ncsnr.reason or source)
    return report.judge('ROI store', f'{version} {subject}', [*rois, sessions, shown, *headers, ncsnr])


def verify_store(layout: NSDLayout, path: Path, voxels: int) -> Tuple[int, float]:
    """Compare random voxels of a store with the release.

    The betas are read through HDF5's or nibabel's own indexing, a voxel and session at a time, and averaged by a plain
    loop in double precision; the valid maps, where present, must agree with the voxels that have no data.

    Args:
        layout: The release tree that the store was made from.
        path: The store.
        voxels: How many voxels, at most all.

    Returns:
        Number of voxels compared; largest difference, relative to 1 + the size of the value.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If there is a difference, naming voxel and image.
    """
    store = ROIStore(path)
    if store.space != 'func1pt8mm' or store.attributes['beta_version'] != layout.beta_version:
        raise ValueError(
            f'{path} holds {store.attributes["beta_version"]} betas in {store.space}, but the release tree was opened '
            f'for {layout.beta_version} in func1pt8mm. Choose the same --beta-version.'
        )
    sessions, count = store.attributes['sessions'].tolist(), len(store.ncsnr)
    ids, shared = read_design(layout.design_file).trials(store.subject, len(sessions))
    chosen = np.sort(np.random.default_rng(0).choice(count, min(voxels, count), replace=False))
    places = store.location['voxel'][chosen].astype(int)
    single = np.full((len(chosen), len(ids)), np.nan)
    for position, session in enumerate(sessions):
        part = slice(position * TRIALS_PER_SESSION, (position + 1) * TRIALS_PER_SESSION)
        betas = _read(layout.session_file(store.subject, session), places).astype(float)
        valid_file = layout.valid_file(store.subject, session)
        if valid_file.exists():
            wrong = (read_volume(valid_file, 'valid map')[0][tuple(places.T)] > 0) != betas.any(1)
            if wrong.any():
                raise ValueError(
                    f'{valid_file} and the betas of session {session} disagree whether voxel {places[wrong][0]} has '
                    'data. Download both again.'
                )
        if store.attributes['normalization'] == 'none':
            normalized = betas / BETA_SCALE
        else:
            reference = betas if store.attributes['normalization'] == 'all' else betas[:, ~shared[part]]
            std = reference.std(1, ddof=1, keepdims=True)
            normalized = (betas - reference.mean(1, keepdims=True)) / np.where(std > 1e-6, std, np.nan)
        single[:, part] = np.where(betas.any(1, keepdims=True), normalized, np.nan)
    largest = 0.0
    for row, image in enumerate(store.image_id):
        repeats = single[:, ids == image]
        expected = np.nansum(repeats, 1) / np.maximum(np.isfinite(repeats).sum(1), 1)
        found = store.responses[row, chosen].astype(float)
        difference = np.nan_to_num(np.abs(found - expected) / (1 + np.abs(expected)), nan=np.inf)
        worst = int(difference.argmax())
        largest = max(largest, float(difference[worst]))
        if largest > TOLERANCE[str(store.responses.dtype)]:
            raise ValueError(
                f'{path}: voxel {places[worst].tolist()}, 73k id {image} (0-based): the store has {found[worst]:.5f}, '
                f'the release gives {expected[worst]:.5f}. Remove it, and make it again with tools/prepare_nsd.py.'
            )
    return len(chosen), largest


def _read(path: Path, places: np.ndarray) -> np.ndarray:
    """Read the (voxels, 750) raw betas."""
    if path.name.endswith('.nii.gz'):
        image = nib.load(path, keep_file_open=True)
        return np.stack([image.dataobj[..., trial][tuple(places.T)] for trial in range(TRIALS_PER_SESSION)], 1)
    with h5py.File(path, 'r') as file:
        return np.stack([file['betas'][:, z, y, x] for x, y, z in places])
