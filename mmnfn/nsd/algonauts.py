"""Where things are in the training data of the Algonauts 2023 challenge, and what they hold.

The challenge took NSD's b3 betas on the fsaverage surface, z-scored each vertex within each session, averaged the
repeats of an image, and kept the vertices of visual cortex ("challenge space"). Labels are those of NSD's ``.ctab``
tables.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple, Union

import numpy as np

from .pickled_dict import load_pickled_dict
from .release import ROI_CLASSES, ROI_LABELS, SUBJECT_SHAPES, existing

HEMISPHERES = ('lh', 'rh')
IMAGE_NAME = re.compile(r'train-(\d+)_nsd-(\d+)\.png')
DOWNLOAD_AGAIN = 'Download the Algonauts 2023 data of the subject again.'


class TrainingImages(NamedTuple):
    """The training pictures of a subject in the order of the responses' rows.

    Attributes:
        image_id: (images,) 0-based 73k ids.
        paths: The PNG files.
    """

    image_id: np.ndarray
    paths: List[Path]


class Hemisphere(NamedTuple):
    """One hemisphere of a subject; C vertices in challenge space.

    Attributes:
        responses: (images, C) memory map.
        vertex: (C,) index of each vertex in fsaverage.
        surface_size: Vertices of the fsaverage surface.
        rois: ROI class → (C,) bool.
    """

    responses: np.ndarray
    vertex: np.ndarray
    surface_size: int
    rois: Dict[str, np.ndarray]


class AlgonautsLayout:
    """Paths and contents of the Algonauts 2023 data.

    Args:
        root: The folder that holds ``subj01`` … ``subj08``, each with ``training_split`` and ``roi_masks``.

    Raises:
        FileNotFoundError: If ``root`` is no such folder.
    """

    def __init__(self, root: Union[str, Path]):
        self.root = Path(root)
        remedy = 'Give the folder that holds subj01/ … subj08/ of the Algonauts 2023 data.'
        existing(self.root, 'Algonauts root folder', remedy)
        if not self.subjects():
            raise FileNotFoundError(f'{self.root} holds no subj0N/training_split. {remedy}')

    def subjects(self) -> List[str]:
        """Subjects with training data."""
        return [name for name in SUBJECT_SHAPES if (self.root / name / 'training_split').is_dir()]

    def response_file(self, subject: str, hemisphere: str) -> Path:
        """Responses (images, C) of a hemisphere, ``'lh'`` or ``'rh'``."""
        return self.root / subject / f'training_split/training_fmri/{hemisphere}_training_fmri.npy'

    def image_dir(self, subject: str) -> Path:
        """Folder of the training pictures."""
        return self.root / subject / 'training_split/training_images'

    def roi_file(self, subject: str, hemisphere: str, roi_class: str) -> Path:
        """Labels (C,) of an ROI class in challenge space."""
        return self.root / subject / f'roi_masks/{hemisphere}.{roi_class}_challenge_space.npy'

    def vertex_file(self, subject: str, hemisphere: str) -> Path:
        """Which fsaverage vertices are in challenge space."""
        return self.root / subject / f'roi_masks/{hemisphere}.all-vertices_fsaverage_space.npy'

    def mapping_file(self, subject: str, roi_class: str) -> Path:
        """Label → name of an ROI class."""
        return self.root / subject / f'roi_masks/mapping_{roi_class}.npy'

    @staticmethod
    def ceiling_file(test_data: Union[str, Path], subject: str, hemisphere: str) -> Path:
        """Noise ceilings (C,) that the challenge published with its test data."""
        return Path(test_data) / subject / f'test_split/noise_ceiling/{hemisphere}_noise_ceiling.npy'

    def files(self, subject: str) -> List[Path]:
        """All files of responses and masks of a subject."""
        return [
            path
            for hemisphere in HEMISPHERES
            for path in (
                self.response_file(subject, hemisphere),
                self.vertex_file(subject, hemisphere),
                *(self.roi_file(subject, hemisphere, name) for name in ROI_CLASSES),
            )
        ] + [self.mapping_file(subject, name) for name in ROI_CLASSES]

    def check_subject(self, subject: str) -> str:
        """Return the name, or raise a FileNotFoundError if the subject has no training data."""
        if subject not in self.subjects():
            raise FileNotFoundError(
                f'{self.root / subject / "training_split"} does not exist. Subjects with training data here: '
                f'{", ".join(self.subjects())}.'
            )
        return subject

    def images(self, subject: str) -> TrainingImages:
        """The training pictures of a subject, from the names of their files.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If a name does not parse, the rows are not 1…n, or an image stands in two rows.
        """
        folder = existing(self.image_dir(self.check_subject(subject)), 'folder of training pictures', DOWNLOAD_AGAIN)
        rows: Dict[int, Tuple[int, Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.name.startswith('.'):
                continue
            name = IMAGE_NAME.fullmatch(path.name)
            if name is None:
                raise ValueError(
                    f'{path} does not look like train-0001_nsd-00013.png (row from 1, 73k id from 0). Move it away.'
                )
            row, image_id = int(name.group(1)), int(name.group(2))
            if row in rows:
                raise ValueError(f'{folder}: row {row} has two files, {rows[row][1].name} and {path.name}. Remove one.')
            rows[row] = image_id, path
        if not rows:
            raise FileNotFoundError(f'{folder} holds no picture. {DOWNLOAD_AGAIN}')
        missing = sorted(set(range(1, max(rows) + 1)) - set(rows))
        if missing or 0 in rows:
            found = 'has a row 0' if not missing else f'lacks {len(missing)} row(s), the first is {missing[0]}'
            raise ValueError(f'{folder} {found}, but the rows must be 1 to {max(rows)}. {DOWNLOAD_AGAIN}')
        ordered = [rows[row] for row in sorted(rows)]
        image_id = np.asarray([entry[0] for entry in ordered], np.int64)
        ids, counts = np.unique(image_id, return_counts=True)
        if len(ids) < len(image_id):
            raise ValueError(
                f'{folder}: nsd id {ids[counts > 1][0]} stands in {counts[counts > 1][0]} rows; each image has one row '
                f'of averaged responses. {DOWNLOAD_AGAIN}'
            )
        return TrainingImages(image_id, [entry[1] for entry in ordered])

    def labels(self, subject: str, roi_class: str) -> Dict[int, str]:
        """Label → name of an ROI class, without ``'Unknown'``; a subject need not have every label.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds anything but names of the class.
        """
        path = self.mapping_file(subject, roi_class)
        table = load_pickled_dict(path, f'labels of {roi_class}')
        if not all(isinstance(k, int) and isinstance(name, str) for k, name in table.items()):
            raise ValueError(f'{path} must map whole numbers to names, found {table}. {DOWNLOAD_AGAIN}')
        names = {k: name.strip() for k, name in table.items()}  # NSD's tables have names that end with a tab
        wrong = sorted(set(names.values()) - {'Unknown', *ROI_LABELS[roi_class]})
        if wrong or min(names, default=0) < 0 or names.get(0, 'Unknown') != 'Unknown':
            raise ValueError(
                f'{path} does not fit {roi_class}: found {names}, expected 0 for Unknown and '
                f'{", ".join(ROI_LABELS[roi_class])}. Is it the file of another class?'
            )
        return {k: name for k, name in names.items() if name != 'Unknown'}

    def hemisphere(self, subject: str, hemisphere: str) -> Hemisphere:
        """Responses and ROI masks of a hemisphere, checked against each other.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If shapes, types or labels do not fit.
        """
        path = self.response_file(self.check_subject(subject), hemisphere)
        responses = load_array(path, f'responses of {subject}', 2)
        if responses.dtype.kind != 'f':
            raise ValueError(f'{path} holds {responses.dtype}; responses must be floating-point. {DOWNLOAD_AGAIN}')
        mask_file = self.vertex_file(subject, hemisphere)
        mask = load_array(mask_file, 'map of the challenge space', 1)
        # The challenge added two maps, so a vertex of both may hold 2.
        vertex = np.flatnonzero(mask)
        if len(vertex) != responses.shape[1]:
            raise ValueError(
                f'{path} has {responses.shape[1]} vertices, but {mask_file} marks {len(vertex)}. They belong to '
                'different subjects or hemispheres; download both again.'
            )
        rois = {name: self._roi(subject, hemisphere, name, len(vertex)) for name in ROI_CLASSES}
        return Hemisphere(responses, vertex, len(mask), rois)

    def noise_ceiling(self, test_data: Union[str, Path], subject: str, hemisphere: str, count: int) -> np.ndarray:
        """Read the published noise ceilings of a hemisphere.

        Args:
            test_data: The folder that holds ``subj01`` … ``subj08``, each with ``test_split``.
            subject: ``'subj0N'``.
            hemisphere: ``'lh'`` or ``'rh'``.
            count: Vertices that it must have.

        Returns:
            (C,) fraction of the variance of the averaged responses to the challenge's test images; NaN if unknown.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it has another number of vertices, or holds something else than fractions.
        """
        path = self.ceiling_file(test_data, subject, hemisphere)
        values = load_array(path, f'noise ceilings of {subject}', 1)
        if len(values) != count:
            raise ValueError(
                f'{path} has {len(values)} vertices, but {self.response_file(subject, hemisphere)} has {count}. They '
                'belong to different subjects or hemispheres; download both again.'
            )
        known = values[~np.isnan(values)]
        if not known.size or known.min() < 0 or known.max() > 1:
            found = f'{known.min():.3g} to {known.max():.3g}' if known.size else 'NaN only'
            raise ValueError(f'{path} holds {found}; noise ceilings are fractions of variance, 0 to 1. Is it percent?')
        return np.array(values)

    def _roi(self, subject: str, hemisphere: str, roi_class: str, count: int) -> np.ndarray:
        """(C,) bool, which vertices have a label of the class."""
        path = self.roi_file(subject, hemisphere, roi_class)
        values = load_array(path, f'ROI {roi_class} of {subject}', 1)
        if len(values) != count:
            raise ValueError(
                f'{path} has {len(values)} vertices, but {self.response_file(subject, hemisphere)} has {count}. They '
                'belong to different subjects or hemispheres; download both again.'
            )
        labels = self.labels(subject, roi_class)
        unknown = sorted(set(np.unique(values).tolist()) - {-1, 0, *labels})
        if unknown:
            raise ValueError(
                f'{path} holds {unknown[:5]}, but {self.mapping_file(subject, roi_class)} names {labels}. Is one of '
                'them another file?'
            )
        return values > 0


def load_array(path: Path, what: str, ndim: int) -> np.ndarray:
    """Memory map of a ``.npy`` file of numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or has another number of dimensions.
    """
    existing(path, what, DOWNLOAD_AGAIN)
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f'{path} ({what}) cannot be read as a .npy file: {error}. {DOWNLOAD_AGAIN}') from error
    if not isinstance(array, np.ndarray) or array.ndim != ndim or array.dtype.kind not in 'buif':
        found = f'{array.dtype} {array.shape}' if isinstance(array, np.ndarray) else 'an archive'
        raise ValueError(f'{path} ({what}) holds {found}; expected {ndim} dimension(s) of numbers. {DOWNLOAD_AGAIN}')
    return array
