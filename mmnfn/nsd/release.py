"""The NSD release tree: where its files are, what its numbers mean, and which voxels have which label.

Source: the NSD data manual and the code that wrote the files; 73k ids are 1-based in the design file and in
``responses.tsv``, 0-based in ``nsd_stim_info_merged.csv`` and everywhere in this package.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import nibabel as nib
import numpy as np

from mmnfn.utils import listed

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
"""Sessions that each subject completed; copies made before August 2023 lack the last three, which is fine."""

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
HEMISPHERES = ('lh', 'rh')

MAX_LABELS = 1000
"""Of an ROI class; a volume with more is no mask and no parcellation."""

PRF_MAPS = ('angle', 'eccentricity', 'size')
"""Degrees anticlockwise from the right; degrees of visual angle; standard deviation in degrees of visual angle."""
IMAGE_DEGREES = 8.4
"""Side of the images in degrees of visual angle."""

DOWNLOAD = 'Download it from the NSD release (func1pt8mm).'


def existing(path: Path, what: str, remedy: str) -> Path:
    """Return ``path``, or raise a FileNotFoundError that names it and says what to do."""
    if not path.exists():
        raise FileNotFoundError(f'{what} is missing: {path} does not exist. {remedy}')
    return path


def read_volume(path: Path, what: str, remedy: str = DOWNLOAD) -> Tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI volume.

    Args:
        path: A ``.nii.gz`` or ``.nii`` file.
        what: Its content in words, for the errors.
        remedy: What to do about a file that is missing or damaged, for the errors.

    Returns:
        (X, Y, Z) array in the type of the file, scaled if the header asks for it; (4, 4) affine to mm.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or not three-dimensional.
    """
    existing(path, what, remedy)
    try:
        content = path.read_bytes()  # unpacked to its end, so that gzip compares its checksum
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content) if path.suffix == '.gz' else content)
        values = np.asarray(image.dataobj)
    except Exception as error:  # nibabel and gzip raise many kinds for a damaged file
        raise ValueError(f'{path} ({what}) cannot be read as NIfTI: {error}. {remedy}') from error
    if values.ndim != 3 or values.dtype.kind not in 'iuf':
        raise ValueError(f'{path} ({what}) holds {values.dtype} values of shape {values.shape}, expected (X, Y, Z).')
    return values, image.affine


class NSDLayout:
    """Find the files of an NSD release tree, and read the small ones.

    Args:
        root: The folder that holds ``nsddata``, ``nsddata_betas`` and ``nsddata_stimuli``.
        beta_version: ``'b1'``, ``'b2'`` or ``'b3'``.

    Raises:
        FileNotFoundError: If ``root`` is no such folder.
        ValueError: If the beta version is unknown.
    """

    def __init__(self, root: Union[str, Path], beta_version: str = 'b3'):
        self.root = Path(root)
        remedy = f'{root} is no NSD release tree: it must hold nsddata/, nsddata_betas/ and nsddata_stimuli/.'
        for folder in (self.root, self.root / 'nsddata'):
            existing(folder, 'NSD root folder', remedy)
        if beta_version not in BETA_VERSIONS:
            raise ValueError(f'beta_version is {beta_version!r}; it must be one of {", ".join(BETA_VERSIONS)}.')
        self.beta_version = beta_version

    @staticmethod
    def check_subject(subject: str) -> str:
        """Return the name ``'subj0N'``, or raise a ValueError."""
        if subject not in SUBJECT_SHAPES:
            raise ValueError(f'subject is {subject!r}; NSD has {", ".join(SUBJECT_SHAPES)}.')
        return subject

    @property
    def design_file(self) -> Path:
        return self.root / 'nsddata/experiments/nsd/nsd_expdesign.mat'

    @property
    def stim_info_file(self) -> Path:
        return self.root / 'nsddata/experiments/nsd/nsd_stim_info_merged.csv'

    @property
    def stimuli_file(self) -> Path:
        """Return the file of the images: dataset ``imgBrick`` (73000, 425, 425, 3) uint8."""
        return self.root / 'nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5'

    def anatomy_dir(self, subject: str) -> Path:
        """Return the folder of brain mask, valid maps and ROIs."""
        return self.root / 'nsddata/ppdata' / self.check_subject(subject) / 'func1pt8mm'

    def brain_mask_file(self, subject: str) -> Path:
        return self.anatomy_dir(subject) / 'brainmask.nii.gz'

    def roi_file(self, subject: str, stem: str) -> Path:
        """Return the file of an ROI class's labels.

        Args:
            subject: ``'subj0N'``, which also replaces ``'{subject}'`` in the path of a mask.
            stem: An ROI class, possibly with ``'lh.'`` or ``'rh.'`` in front, or the path of a mask of one's own.
        """
        if is_mask(stem):
            return Path(stem.replace('{subject}', subject))
        return self.anatomy_dir(subject) / 'roi' / f'{stem}.nii.gz'

    def hemisphere_files(self, subject: str, roi_classes: Sequence[str], hemisphere: str) -> List[Path]:
        """List the files of ROI classes in one hemisphere (labels; 0 other cortex of it; −1 elsewhere), if there."""
        files = [self.roi_file(subject, f'{hemisphere}.{name}') for name in roi_classes if not is_mask(name)]
        return [path for path in files if path.exists()]

    def label_file(self, subject: str, roi_class: str) -> Path:
        """Return the file of an ROI class's label table."""
        return self.root / 'nsddata/freesurfer' / self.check_subject(subject) / 'label' / f'{roi_class}.mgz.ctab'

    def valid_file(self, subject: str, session: int) -> Path:
        """Return the map of the voxels with data in a session (1-based)."""
        return self.anatomy_dir(subject) / f'valid_session{session:02d}.nii.gz'

    def responses_file(self, subject: str) -> Path:
        """Return the behavioural table, one row per trial."""
        return self.root / 'nsddata/ppdata' / self.check_subject(subject) / 'behav/responses.tsv'

    def beta_dir(self, subject: str) -> Path:
        """Return the folder of the betas of the chosen version."""
        folder = BETA_VERSIONS[self.beta_version]
        return self.root / 'nsddata_betas/ppdata' / self.check_subject(subject) / 'func1pt8mm' / folder

    def beta_file(self, subject: str, session: int, suffix: str = 'hdf5') -> Path:
        """Return the file of a session's betas (1-based), as ``hdf5`` or ``nii.gz``."""
        return self.beta_dir(subject) / f'betas_session{session:02d}.{suffix}'

    def session_file(self, subject: str, session: int) -> Path:
        """Return the file of a session's betas (1-based): HDF5, or NIfTI where that is the only one."""
        path, nifti = self.beta_file(subject, session), self.beta_file(subject, session, 'nii.gz')
        return nifti if nifti.exists() and not path.exists() else path

    def ncsnr_file(self, subject: str) -> Path:
        """Return the map of the noise ceiling signal-to-noise ratio of the chosen betas."""
        return self.beta_dir(subject) / 'ncsnr.nii.gz'

    def prf_file(self, subject: str, name: str) -> Path:
        """The map of the population receptive fields' ``angle``, ``eccentricity`` or ``size``."""
        return self.anatomy_dir(subject) / f'prf_{name}.nii.gz'

    def subjects(self) -> List[str]:
        """List the subjects with betas of the chosen version."""
        return [subject for subject in SUBJECT_SHAPES if self.beta_dir(subject).is_dir()]

    def sessions(self, subject: str, max_sessions: Optional[int] = None) -> List[int]:
        """List the sessions (1-based) with betas, as HDF5 or NIfTI.

        Args:
            subject: ``'subj0N'``.
            max_sessions: Only the first sessions; a gap after them does not matter.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If one is missing in the middle, or there are more than NSD has; a copy that ends early is
                fine.
        """
        subjects = ', '.join(self.subjects()) or 'none'
        what = f'folder of the {self.beta_version} betas of {subject}'
        folder = existing(self.beta_dir(subject), what, f'Subjects with betas here: {subjects}.')
        names = (re.fullmatch(r'betas_session(\d\d)\.(hdf5|nii\.gz)', path.name) for path in folder.iterdir())
        found = sorted({int(name.group(1)) for name in names if name})
        if not found:
            raise FileNotFoundError(f'{folder} holds no betas_sessionNN.hdf5. Download at least session 1.')
        missing = sorted(set(range(1, min(found[-1], max_sessions or found[-1]) + 1)) - set(found))
        if missing:
            way_out = f', or use only the first {missing[0] - 1}: --max-sessions' if missing[0] > 1 else ''
            raise ValueError(
                f'{folder} lacks session(s) {", ".join(map(str, missing))} although it has session '
                f'{found[-1]}. Download what is missing{way_out}.'
            )
        if found[-1] > FULL_SESSIONS[subject]:
            raise ValueError(
                f'{folder} has session {found[-1]}, but {subject} has sessions 1 to {FULL_SESSIONS[subject]}. Are they '
                'files of another subject?'
            )
        return found[:max_sessions]

    def roi_classes(self, subject: str) -> List[str]:
        """List the stems of all ROI files of a subject, except those of one hemisphere."""
        stems = (path.name[: -len('.nii.gz')] for path in (self.anatomy_dir(subject) / 'roi').glob('*.nii.gz'))
        return sorted(stem for stem in stems if not stem.startswith(('lh.', 'rh.')))

    def roi(self, subject: str, roi_class: str) -> Tuple[np.ndarray, np.ndarray]:
        """Read the labels of an ROI class and the affine of the volume.

        Args:
            subject: ``'subj0N'``.
            roi_class: One of the six classes, the stem of any other file in ``roi/``, e.g. ``'HCP_MMP1'``, or the path
                of a mask of one's own.

        Returns:
            (X, Y, Z) int: −1 not cortex, 0 no label, k label; and (4, 4) voxel → mm.

        Raises:
            FileNotFoundError, ValueError: If the class is unknown, or a file is missing or not what it should be.
        """
        known = sorted({*ROI_CLASSES, *self.roi_classes(subject)})
        if not is_mask(roi_class) and roi_class not in known:
            raise ValueError(
                f'ROI class is {roi_class!r}; known for {subject} are {", ".join(known)}, and paths of .nii.gz files.'
            )
        path, remedy = self.roi_file(subject, roi_class), DOWNLOAD
        if is_mask(roi_class):
            remedy = f'Give a volume in func1pt8mm of {subject} with 1 in the ROI and 0 elsewhere, or with labels.'
        values, affine = read_volume(path, f'ROI {roi_class} of {subject}', remedy)
        labels = np.rint(np.nan_to_num(values, nan=-9)).astype(int)  # stored as float64
        if labels.min() < -1 or not np.allclose(values, labels, atol=1e-3):
            raise ValueError(f'{path} holds values other than the labels -1, 0, 1, 2, …. {remedy}')
        found, table = set(np.unique(labels[labels > 0]).tolist()), self.labels(subject, roi_class)
        if table and found - set(table):
            raise ValueError(
                f'{path} holds label(s) {sorted(found - set(table))[:5]}, but {self.label_file(subject, roi_class)} '
                f'names {sorted(table)}. Is one of them another file? Download both again.'
            )
        if len(found) > MAX_LABELS or labels.max() > np.iinfo(np.int16).max:
            raise ValueError(f'{path} holds {len(found)} values up to {labels.max()}: these are no labels. {remedy}')
        return labels, affine

    def labels(self, subject: str, roi_class: str) -> Dict[int, str]:
        """Read the label table of an ROI class, number → name, without 0; {} if it is none of the six and has none."""
        path = self.label_file(subject, roi_class)
        if roi_class not in ROI_LABELS and (is_mask(roi_class) or not path.exists()):
            return {}
        existing(path, f'label table of {roi_class}', 'Download nsddata/freesurfer/subj0N/label/*.ctab.')
        try:
            rows = (line.split(None, 1) for line in path.read_text('utf-8').splitlines() if line.strip())
            table = {int(index): name.strip() for index, name in rows}
        except ValueError as error:
            raise ValueError(f'{path} has a line that is no "index name": {error}. Download it again.') from error
        table.pop(0, None)
        if not table:
            raise ValueError(f'{path} names no label. Download it again.')
        return table


def is_mask(roi_class: str) -> bool:
    """Tell the path of a mask from the name of an ROI class of NSD."""
    return roi_class.endswith(('.nii', '.nii.gz'))


def roi_class_name(roi_class: str) -> str:
    """Name an ROI class; a mask by its file: ``'my/{subject}/mask.nii.gz'`` → ``'mask'``."""
    return re.sub(r'\.nii(\.gz)?$', '', Path(roi_class).name) if is_mask(roi_class) else roi_class


class ROILabels(NamedTuple):
    """Hold the labels of an ROI class.

    Attributes:
        values: (V,) int16 label of each voxel, 0 for none.
        names: Label → name, also of labels that no voxel has.
    """

    values: np.ndarray
    names: Dict[int, str]


class Voxels(NamedTuple):
    """Hold the voxels of a store, in the raster order of the beta files (z slowest, x fastest).

    Attributes:
        index: (V, 3) x, y, z.
        rois: ROI class → labels of the V voxels.
        hemisphere: (V,) ``'lh'``, ``'rh'``, or ``''`` where no ``lh.`` or ``rh.`` file of the ROI classes tells.
        shape: Volume (X, Y, Z).
        affine: (4, 4) voxel index → mm.
    """

    index: np.ndarray
    rois: Dict[str, ROILabels]
    hemisphere: np.ndarray
    shape: Tuple[int, int, int]
    affine: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """Compute where the voxels are, (V, 3) in mm."""
        return self.index @ self.affine[:3, :3].T + self.affine[:3, 3]


def select_voxels(layout: NSDLayout, subject: str, roi_classes: Sequence[str]) -> Voxels:
    """Select the voxels that have a label in any of the ROI classes; a class without labels is fine.

    Args:
        layout: The release tree.
        subject: ``'subj0N'``.
        roi_classes: ROI classes of NSD, and paths of masks, which must lie in the space of the former (or of the brain
            mask).

    Raises:
        FileNotFoundError, ValueError: If a file is missing or holds no labels, the volumes lie in different spaces, or
            there is no voxel at all.
    """
    classes = sorted(roi_classes, key=is_mask)
    volumes, tables, first = {}, {}, None

    def checked(path: Path, volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
        nonlocal first
        first = first or (path, volume.shape, affine)
        if volume.shape != first[1] or not np.allclose(affine, first[2], atol=1e-3):
            raise ValueError(
                f'{path} has shape {volume.shape} and affine {affine[:3].tolist()}, but {first[0]} has {first[1]} and '
                f'{first[2][:3].tolist()}: they belong to different subjects or spaces. Get both in func1pt8mm of '
                f'{subject}.'
            )
        return volume

    if is_mask(classes[0]):
        brain = layout.brain_mask_file(subject)
        checked(brain, *read_volume(brain, 'brain mask, whose space masks must have,'))
    for name in classes:
        volume = checked(layout.roi_file(subject, name), *layout.roi(subject, name))
        table = layout.labels(subject, name) or {k: str(k) for k in np.unique(volume[volume > 0]).tolist()}
        volumes[roi_class_name(name)], tables[roi_class_name(name)] = volume, table
    halves = [
        [
            checked(path, *read_volume(path, f'ROI of {side}'))
            for path in layout.hemisphere_files(subject, classes, side)
        ]
        for side in HEMISPHERES
    ]
    union = np.any([volume > 0 for volume in volumes.values()], axis=0)
    if not union.any():
        raise ValueError(f'{subject} has no voxel in {", ".join(roi_classes)}. Choose other ROI classes.')
    z, y, x = np.nonzero(union.transpose(2, 1, 0))
    rois = {
        name: ROILabels(np.maximum(volume[x, y, z], 0).astype(np.int16), tables[name])
        for name, volume in volumes.items()
    }
    left, right = (np.max([np.full(len(x), -1), *(volume[x, y, z] for volume in half)], axis=0) for half in halves)
    hemisphere = np.select([left > 0, right > 0, left == 0, right == 0], ['lh', 'rh', 'lh', 'rh'], '')
    return Voxels(np.stack([x, y, z], -1), rois, hemisphere, union.shape, first[2])


def subject_names(subjects: Union[int, str, Sequence[Union[int, str]]]) -> List[str]:
    """Name subjects: ``[1, '2', 'subj03']`` → ``['subj01', 'subj02', 'subj03']``; a single one gives a list of one."""
    return [f'subj{int(s):02d}' if str(s).isdigit() else str(s) for s in listed(subjects)]


def parse_subjects(subjects: Union[int, str, Sequence[Union[int, str]]]) -> List[str]:
    """Name subjects like :func:`subject_names`; raise a ValueError for one that NSD does not have, or a repetition."""
    names = subject_names(subjects)
    for name in names:
        NSDLayout.check_subject(name)
    if len(set(names)) != len(names):
        raise ValueError(f'subjects has repetitions: {", ".join(names)}.')
    return names
