"""Where things are in the NSD release tree, and what their numbers mean.

Source: the NSD data manual and the code that wrote the files; 73k and 10k ids are 1-based in the design file and in
``responses.tsv``, 0-based in ``nsd_stim_info_merged.csv`` and everywhere in this package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from mmnfn.utils import listed

from .files import existing
from .volumes import read_volume

TRIALS_PER_SESSION = 750
NUM_STIMULI = 73000
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

FULL_SESSIONS = dict(zip(SUBJECT_SHAPES, (40, 40, 32, 30, 40, 32, 40, 30)))
"""Sessions that each subject completed; copies from before August 2023 lack the last three, which is legal."""

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

    def session_file(self, subject: str, session: int) -> Path:
        """Betas of a session (1-based): the HDF5 file, or the NIfTI file where there is no other."""
        path = self.beta_file(subject, session)
        nifti = self.beta_file(subject, session, 'nii.gz')
        return nifti if nifti.exists() and not path.exists() else path

    def _sessions_found(self, subject: str) -> List[int]:
        names = (path.name for path in self.beta_dir(subject).iterdir())
        found = (re.fullmatch(r'betas_session(\d\d)\.(hdf5|nii\.gz)', name) for name in names)
        return sorted({int(name.group(1)) for name in found if name})

    def sessions(self, subject: str, max_sessions: Optional[int] = None) -> List[int]:
        """Sessions (1-based) with betas, as HDF5 or NIfTI.

        Args:
            subject: ``'subj0N'``.
            max_sessions: Only the first sessions; what is missing after them does not matter.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If one is missing in the middle, or there are more than NSD has; a copy that ends early is
                legal.
        """
        folder = existing(
            self.beta_dir(subject),
            f'folder of the {self.beta_version} betas of {subject}',
            f'Subjects with betas here: {", ".join(self.subjects()) or "none"}.',
        )
        found = self._sessions_found(subject)
        if not found:
            raise FileNotFoundError(f'{folder} holds no betas_sessionNN.hdf5. Download at least session 1.')
        missing = sorted(set(range(1, min(found[-1], max_sessions or found[-1]) + 1)) - set(found))
        if missing:
            way_out = f', or use only the first {missing[0] - 1}: --max-sessions' if missing[0] > 1 else ''
            raise ValueError(
                f'{folder} lacks session(s) {", ".join(map(str, missing))} although it has session '
                f'{found[-1]}. Download what is missing{way_out}.'
            )
        if found[0] < 1 or found[-1] > FULL_SESSIONS[subject]:
            raise ValueError(
                f'{folder} has session {found[0] if found[0] < 1 else found[-1]}, but {subject} has sessions 1 to '
                f'{FULL_SESSIONS[subject]}. Are they files of another subject?'
            )
        return found[:max_sessions]

    def roi_classes(self, subject: str) -> List[str]:
        """Stems of all ROI files of a subject, without those of one hemisphere."""
        stems = (path.name[: -len('.nii.gz')] for path in (self.anatomy_dir(subject) / 'roi').glob('*.nii.gz'))
        return sorted(stem for stem in stems if not stem.startswith(('lh.', 'rh.')))

    def roi(self, subject: str, roi_class: str, hemisphere: Optional[str] = None) -> Tuple[np.ndarray, np.ndarray]:
        """Labels of an ROI class, and the affine of the volume.

        Args:
            subject: ``'subj0N'``.
            roi_class: One of the six classes, or the stem of any other file in ``roi/``, e.g. ``'nsdgeneral'``.
            hemisphere: ``'lh'``, ``'rh'``, or None for both.

        Returns:
            (X, Y, Z) int: −1 not cortex (or not of this hemisphere), 0 no label, k label; and (4, 4) voxel → mm.

        Raises:
            ValueError: If the class is unknown, or the file does not hold labels of the table.
            FileNotFoundError: If a file is missing.
        """
        if roi_class not in {*ROI_CLASSES, *self.roi_classes(subject)}:
            known = ', '.join(sorted({*ROI_CLASSES, *self.roi_classes(subject)}))
            raise ValueError(f'ROI class is {roi_class!r}; known for {subject} are {known}.')
        if hemisphere not in (None, 'lh', 'rh'):
            raise ValueError(f"hemisphere is {hemisphere!r}; it must be 'lh', 'rh' or None.")
        path = self.roi_file(subject, roi_class if hemisphere is None else f'{hemisphere}.{roi_class}')
        values, affine = read_volume(path, f'ROI {roi_class} of {subject}')
        if not (np.abs(values) < 2**31).all():
            raise ValueError(f'{path} holds values that are not finite, or huge. Download it again.')
        labels = np.rint(values).astype(int)  # written as float64
        if not np.allclose(values, labels, atol=1e-3) or labels.min() < -1:
            raise ValueError(f'{path} holds values that are no labels -1, 0, 1, 2, …. Download it again.')
        if roi_class in ROI_LABELS or self.label_file(subject, roi_class).exists():
            table = self.labels(subject, roi_class)
            unknown = sorted(set(np.unique(labels).tolist()) - {-1, 0} - set(table))
            if unknown:
                raise ValueError(
                    f'{path} holds label(s) {unknown[:5]}, but {self.label_file(subject, roi_class)} names '
                    f'{sorted(table)}. Is one of them another file? Download both again.'
                )
        return labels, affine

    def labels(self, subject: str, roi_class: str) -> Dict[int, str]:
        """Label table of an ROI class, index → name, without 0; names may end with tabs in the file."""
        path = existing(
            self.label_file(subject, roi_class),
            f'label table of {roi_class}',
            'Download nsddata/freesurfer/subj0N/label/*.ctab.',
        )
        table = {}
        for number, line in enumerate(path.read_text('utf-8', 'replace').splitlines(), 1):
            if line.strip():
                parts = line.split(None, 1)
                if len(parts) != 2 or not re.fullmatch('[0-9]{1,9}', parts[0]) or int(parts[0]) in table:
                    raise ValueError(f'{path}, line {number}: {line!r} is no "index name". Download it again.')
                table[int(parts[0])] = parts[1].strip()
        table.pop(0, None)
        if not table:
            raise ValueError(f'{path} names no label. Download it again.')
        return table


def subject_names(subjects: Union[int, str, Sequence[Union[int, str]]]) -> List[str]:
    """``[1, '2', 'subj03']`` → ``['subj01', 'subj02', 'subj03']``, and a single one to a list of one."""
    return [f'subj{int(s):02d}' if str(s).isdigit() else str(s) for s in listed(subjects)]


def parse_subjects(subjects: Union[int, str, Sequence[Union[int, str]]]) -> List[str]:
    """:func:`subject_names`; ValueError for a name that is none of NSD, or a repetition."""
    names = subject_names(subjects)
    for name in names:
        NSDLayout.check_subject(name)
    if len(set(names)) != len(names):
        raise ValueError(f'subjects has repetitions: {", ".join(names)}.')
    return names
