"""Where things are in the NSD release tree, and what their numbers mean.

Source: the NSD data manual and the code that wrote the files; 73k and 10k ids are 1-based in the design file and in
``responses.tsv``, 0-based in ``nsd_stim_info_merged.csv`` and everywhere in this package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

import nibabel as nib
import numpy as np
import pandas as pd
import scipy.io

TRIALS_PER_SESSION = 750
BETA_SCALE = 300.0
"""int16 betas are percent signal change times 300."""

BETA_VERSIONS = {'b1': 'betas_assumehrf', 'b2': 'betas_fithrf', 'b3': 'betas_fithrf_GLMdenoise_RR'}

SUBJECT_SHAPES: Dict[str, Tuple[int, int, int]] = {
    'subj01': (81, 104, 83),
    'subj02': (82, 106, 84),
    'subj03': (81, 106, 82),
    'subj04': (85, 99, 80),
    'subj05': (79, 97, 78),
    'subj06': (85, 113, 83),
    'subj07': (78, 95, 81),
    'subj08': (80, 103, 78),
}
"""Volume (X, Y, Z) of the func1pt8mm space."""

ROI_LABELS: Dict[str, Tuple[str, ...]] = {
    'prf-visualrois': ('V1v', 'V1d', 'V2v', 'V2d', 'V3v', 'V3d', 'hV4'),
    'floc-bodies': ('EBA', 'FBA-1', 'FBA-2', 'mTL-bodies'),
    'floc-faces': ('OFA', 'FFA-1', 'FFA-2', 'mTL-faces', 'aTL-faces'),
    'floc-places': ('OPA', 'PPA', 'RSC'),
    'floc-words': ('OWFA', 'VWFA-1', 'VWFA-2', 'mfs-words', 'mTL-words'),
    'streams': ('early', 'midventral', 'midlateral', 'midparietal', 'ventral', 'lateral', 'parietal'),
}
"""The six ROI classes of the paper with NSD's labels 1…N; not every subject has every label."""

ROI_CLASSES = tuple(ROI_LABELS)


def existing(path: Path, what: str, remedy: str) -> Path:
    """Return ``path``, or raise a FileNotFoundError that names it and says what to do."""
    if not path.exists():
        raise FileNotFoundError(f'{what} is missing: {path} does not exist. {remedy}')
    return path


class Design(NamedTuple):
    """The experiment design, 0-based.

    Attributes:
        image_id: (trials,) 0-based 73k id of each trial of one subject, over all planned sessions.
        shared: (trials,) bool, whether the trial shows an image that all subjects were meant to see.
    """

    image_id: np.ndarray
    shared: np.ndarray


class NSDLayout:
    """Paths and small files of an NSD release tree.

    Args:
        root: The folder that holds ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
        beta_version: ``'b1'``, ``'b2'`` or ``'b3'``.

    Raises:
        FileNotFoundError: If ``root`` is no such folder.
        ValueError: If the beta version is unknown.
    """

    def __init__(self, root: Union[str, Path], beta_version: str = 'b3'):
        self.root = Path(root)
        existing(
            self.root, 'NSD root folder', 'Give the folder that holds nsddata/, nsddata_betas/ and nsddata_stimuli/.'
        )
        existing(
            self.root / 'nsddata', 'NSD root folder', f'{self.root} is no NSD release tree: it must hold nsddata/.'
        )
        if beta_version not in BETA_VERSIONS:
            raise ValueError(
                f'beta_version is {beta_version!r}; it must be one of {", ".join(BETA_VERSIONS)} '
                '(b3 = betas_fithrf_GLMdenoise_RR).'
            )
        self.beta_version = beta_version

    @staticmethod
    def check_subject(subject: str) -> str:
        """Return the name ``'subj0N'``, or raise a ValueError."""
        if subject not in SUBJECT_SHAPES:
            raise ValueError(f'subject is {subject!r}; NSD has {", ".join(SUBJECT_SHAPES)}.')
        return subject

    @property
    def design_file(self) -> Path:
        """The ``nsd_expdesign.mat`` file."""
        return self.root / 'nsddata/experiments/nsd/nsd_expdesign.mat'

    @property
    def stim_info_file(self) -> Path:
        """The ``nsd_stim_info_merged.csv`` file."""
        return self.root / 'nsddata/experiments/nsd/nsd_stim_info_merged.csv'

    @property
    def stimuli_file(self) -> Path:
        """The stimuli file, dataset ``imgBrick`` (73000, 425, 425, 3) uint8."""
        return self.root / 'nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5'

    def anatomy_dir(self, subject: str) -> Path:
        """Folder of brain mask, valid maps and ROIs."""
        return self.root / 'nsddata/ppdata' / self.check_subject(subject) / 'func1pt8mm'

    def roi_file(self, subject: str, stem: str) -> Path:
        """File of an ROI class; ``stem`` may carry ``lh.`` or ``rh.`` in front."""
        return self.anatomy_dir(subject) / 'roi' / f'{stem}.nii.gz'

    def label_file(self, subject: str, roi_class: str) -> Path:
        """The ``.mgz.ctab`` table of an ROI class."""
        return self.root / 'nsddata/freesurfer' / self.check_subject(subject) / 'label' / f'{roi_class}.mgz.ctab'

    def valid_file(self, subject: str, session: int) -> Path:
        """Map of the voxels with data in a session (1-based)."""
        return self.anatomy_dir(subject) / f'valid_session{session:02d}.nii.gz'

    def responses_file(self, subject: str) -> Path:
        """The behavioural table ``responses.tsv``."""
        return self.root / 'nsddata/ppdata' / self.check_subject(subject) / 'behav/responses.tsv'

    def beta_dir(self, subject: str) -> Path:
        """Folder of the betas of the chosen version."""
        return (
            self.root
            / 'nsddata_betas/ppdata'
            / self.check_subject(subject)
            / 'func1pt8mm'
            / BETA_VERSIONS[self.beta_version]
        )

    def beta_file(self, subject: str, session: int, suffix: str = 'hdf5') -> Path:
        """Betas of a session (1-based)."""
        return self.beta_dir(subject) / f'betas_session{session:02d}.{suffix}'

    def subjects(self) -> List[str]:
        """Subjects with betas of the chosen version."""
        return [subject for subject in SUBJECT_SHAPES if self.beta_dir(subject).is_dir()]

    def sessions(self, subject: str) -> List[int]:
        """Sessions (1-based) with an HDF5 file of betas.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If one is missing in the middle; a copy that ends early is legal.
        """
        folder = existing(
            self.beta_dir(subject),
            f'folder of the {self.beta_version} betas of {subject}',
            f'Subjects with betas here: {", ".join(self.subjects()) or "none"}.',
        )
        found = sorted(
            int(m.group(1)) for m in (re.fullmatch(r'betas_session(\d+)\.hdf5', p.name) for p in folder.iterdir()) if m
        )
        if not found:
            raise FileNotFoundError(f'{folder} holds no betas_sessionNN.hdf5. Download at least session 1.')
        missing = sorted(set(range(1, found[-1] + 1)) - set(found))
        if missing:
            raise ValueError(
                f'{folder} lacks session(s) {", ".join(map(str, missing))} although it has session '
                f'{found[-1]}. Download what is missing, or restrict the sessions.'
            )
        return found

    def volume(self, path: Path, what: str) -> nib.Nifti1Image:
        """Open a NIfTI file, with an error that names it."""
        existing(path, what, 'Download it from the NSD release (func1pt8mm).')
        try:
            return nib.load(path)
        except Exception as error:
            raise ValueError(f'{path} ({what}) cannot be read as NIfTI: {error}. Download it again.') from error

    def roi(self, subject: str, roi_class: str) -> np.ndarray:
        """(X, Y, Z) int labels of an ROI class: −1 not cortex, 0 no label, k label.

        Raises:
            ValueError: If the class is unknown or the file is none of integer labels.
            FileNotFoundError: If the file is missing.
        """
        if roi_class not in ROI_LABELS:
            raise ValueError(f'ROI class is {roi_class!r}; known are {", ".join(ROI_CLASSES)}.')
        path = self.roi_file(subject, roi_class)
        values = np.asarray(self.volume(path, f'ROI {roi_class} of {subject}').dataobj)
        labels = np.rint(values).astype(int)  # written as float64
        highest = max(self.labels(subject, roi_class))
        if not np.allclose(values, labels, atol=1e-3) or labels.min() < -1 or labels.max() > highest:
            raise ValueError(
                f'{path} holds values outside the labels -1…{highest} of {roi_class}: '
                f'from {values.min()} to {values.max()}. Is it another file?'
            )
        return labels

    def labels(self, subject: str, roi_class: str) -> Dict[int, str]:
        """Label table of an ROI class, index → name, without 0; names may end with tabs in the file."""
        path = existing(
            self.label_file(subject, roi_class),
            f'label table of {roi_class}',
            'Download nsddata/freesurfer/subj0N/label/*.ctab.',
        )
        table = {}
        for line in path.read_text().splitlines():
            if line.strip():
                index, name = line.split(None, 1)
                table[int(index)] = name.strip()
        table.pop(0, None)
        if not table:
            raise ValueError(f'{path} names no label. Download it again.')
        return table

    def design(self, subject: str) -> Design:
        """The design of one subject; trial t = 750·(session − 1) + trial within the session.

        Raises:
            ValueError: If ids are out of range.
        """
        index = int(self.check_subject(subject)[4:]) - 1
        path = existing(self.design_file, 'design file', 'Download nsddata/experiments/nsd/nsd_expdesign.mat.')
        try:
            mat = scipy.io.loadmat(path, variable_names=('masterordering', 'subjectim', 'sharedix'))
            order, own = mat['masterordering'].ravel().astype(int) - 1, mat['subjectim'].astype(int) - 1
            shared = mat['sharedix'].size
        except Exception as error:
            raise ValueError(f'{path} cannot be read as the NSD design: {error!r}. Download it again.') from error
        if index >= len(own):
            raise ValueError(f'{path} has {len(own)} subjects, so none is {subject}.')
        if order.min() < 0 or order.max() >= own.shape[1] or own.min() < 0:
            raise ValueError(
                f'{path}: masterordering or subjectim has ids out of range '
                f'(10k ids {order.min() + 1}…{order.max() + 1} for {own.shape[1]} images). Download it again.'
            )
        return Design(own[index, order], order < shared)

    def stim_info(self) -> pd.DataFrame:
        """The stimulus table; ``nsdId`` is 0-based."""
        existing(self.stim_info_file, 'stimulus table', 'Download nsd_stim_info_merged.csv.')
        return pd.read_csv(self.stim_info_file, index_col=0)


def parse_subjects(subjects: Sequence[Union[int, str]]) -> List[str]:
    """``[1, '2', 'subj03']`` → ``['subj01', 'subj02', 'subj03']``; ValueError for anything else or a repetition."""
    names = [f'subj{int(s):02d}' if str(s).isdigit() else str(s) for s in subjects]
    for name in names:
        NSDLayout.check_subject(name)
    if len(set(names)) != len(names):
        raise ValueError(f'subjects has repetitions: {", ".join(names)}.')
    return names
