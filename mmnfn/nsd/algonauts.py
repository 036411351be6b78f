"""The training data of the Algonauts 2023 challenge, and ROI stores made of it.

The challenge took NSD's b3 betas on the fsaverage surface, z-scored each vertex within each session, averaged the
repeats of an image, and kept the vertices of visual cortex ("challenge space"). Labels are numbered as in NSD.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

import nibabel as nib
import numpy as np

from mmnfn.utils import progress_bar

from .design import read_stim_info
from .images import write_image_store
from .preparation import earlier_store
from .release import HEMISPHERES, ROI_CLASSES, ROI_LABELS, SUBJECT_SHAPES, ROILabels, existing
from .store import StoreTables, atomic_h5

IMAGE_NAME = re.compile(r'train-(\d+)_nsd-(\d+)\.png')
DOWNLOAD_AGAIN = 'Download the Algonauts 2023 data of the subject again.'
ROWS_PER_BLOCK = 256
"""Responses are stored image by image, so blocks of images are read in one piece."""
SURFACES = (
    'Give a folder with lh.white and rh.white (nsddata/freesurfer/fsaverage/surf of the NSD release, or of any '
    'FreeSurfer installation), or with white_left.gii.gz and white_right.gii.gz (nilearn: '
    "datasets.fetch_surf_fsaverage('fsaverage7'))."
)
PathLike = Union[str, Path]


def find_subjects(root: PathLike) -> List[str]:
    """List the subjects with training data.

    Args:
        root: The folder that holds ``subj01`` … ``subj08``, each with ``training_split`` and ``roi_masks``.

    Raises:
        FileNotFoundError: If there are none.
    """
    remedy = 'Give the folder that holds subj01/ … subj08/ of the Algonauts 2023 data.'
    root = existing(Path(root), 'Algonauts root folder', remedy)
    subjects = [name for name in SUBJECT_SHAPES if (root / name / 'training_split').is_dir()]
    if not subjects:
        raise FileNotFoundError(f'{root} holds no subj0N/training_split. {remedy}')
    return subjects


def find_images(root: PathLike, subject: str) -> Tuple[np.ndarray, List[Path]]:
    """Find the training images of a subject by the names of their files.

    Returns:
        (images,) 0-based 73k ids and the PNG files, in the order of the responses' rows.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If a name does not parse, or the rows are not 1…n.
    """
    folder = Path(root) / subject / 'training_split/training_images'
    existing(
        folder, 'folder of training images', f'Subjects with training data here: {", ".join(find_subjects(root))}.'
    )
    found = []
    for path in folder.iterdir():
        name = IMAGE_NAME.fullmatch(path.name)
        if name is not None:
            found.append((int(name.group(1)), int(name.group(2)), path))
        elif not path.name.startswith('.'):
            raise ValueError(
                f'{path} does not look like train-0001_nsd-00013.png (row from 1, 73k id from 0). Move it away.'
            )
    if not found:
        raise FileNotFoundError(f'{folder} holds no image. {DOWNLOAD_AGAIN}')
    found.sort()
    for expected, (row, _, path) in enumerate(found, 1):
        if row != expected:
            raise ValueError(
                f'{folder} has no image of row {expected}, or two of row {row}: the next file is {path.name}. '
                f'{DOWNLOAD_AGAIN}'
            )
    return np.asarray([image_id for _, image_id, _ in found], np.int64), [path for *_, path in found]


def read_white_surface(folder: Optional[Union[str, Path]], hemisphere: str) -> Tuple[Path, np.ndarray]:
    """Read the white surface of a hemisphere, as FreeSurfer or as nilearn stores it.

    Args:
        folder: Folder of the surfaces; FreeSurfer's may also be in its ``surf/``.
        hemisphere: ``'lh'`` or ``'rh'``.

    Returns:
        The file, and the (vertices, 3) float32 coordinates in mm.

    Raises:
        FileNotFoundError: If there is no such file; the message says where to get one.
        ValueError: If it is no surface.
    """
    if folder is None:
        raise FileNotFoundError(f'fsaverage surfaces are missing: --fsaverage is not given. {SURFACES}')
    stem = {'lh': 'white_left', 'rh': 'white_right'}[hemisphere]
    names = [f'{hemisphere}.white', f'surf/{hemisphere}.white', f'{stem}.gii', f'{stem}.gii.gz']
    path = next((Path(folder) / name for name in names if (Path(folder) / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f'fsaverage surface is missing: {folder} has none of {", ".join(names)}. {SURFACES}')
    try:
        if path.suffix == '.white':
            coordinates = nib.freesurfer.read_geometry(path)[0]
        else:
            coordinates = nib.load(path).agg_data('pointset')
        return path, coordinates.reshape(-1, 3).astype(np.float32)
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise ValueError(f'{path} cannot be read as a surface: {error}. {SURFACES}') from error


class Hemisphere:
    """Read the V vertices of a hemisphere that have a label of some ROI class, in the order of the files.

    Args:
        root: The folder of the data.
        subject: ``'subj0N'``.
        name: ``'lh'`` or ``'rh'``.
        fsaverage: Folder of the white surfaces, see :func:`read_white_surface`.
        test_data: Folder of the challenge's test data, for the published noise ceilings.

    Attributes:
        sources: The files; the first has the responses to the images.
        vertex: (V,) index in fsaverage.
        coordinates: (V, 3) mm.
        rois: ROI class → (V,) label, 0 for none.
        noise_ceiling: (V,) percent of the variance of the averaged responses to the challenge's test images; NaN if
            not known.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If shapes, types or labels do not fit.
    """

    def __init__(
        self,
        root: Path,
        subject: str,
        name: str,
        fsaverage: Optional[PathLike],
        test_data: Optional[PathLike] = None,
    ):
        masks = root / subject / 'roi_masks'
        self.sources = [root / subject / f'training_split/training_fmri/{name}_training_fmri.npy']
        self.responses = _load(self.sources[0], 2, 'f')
        mask_file = masks / f'{name}.all-vertices_fsaverage_space.npy'
        mask = _load(mask_file, 1)
        vertex = self._fitting(mask_file, np.flatnonzero(mask))  # the challenge added two maps: a vertex may hold 2
        surface_file, coordinates = read_white_surface(fsaverage, name)
        if len(coordinates) != len(mask):
            raise ValueError(
                f'{surface_file} has {len(coordinates)} vertices, but {mask_file} is for {len(mask)}. {SURFACES}'
            )
        self.sources += [mask_file, surface_file]
        rois = {}
        for roi_class, names in ROI_LABELS.items():
            path = masks / f'{name}.{roi_class}_challenge_space.npy'
            labels = self._fitting(path, _load(path, 1))
            unknown = np.setdiff1d(labels, np.arange(-1, len(names) + 1))
            if len(unknown):
                raise ValueError(
                    f'{path} holds the label {unknown[0]}, but {roi_class} has 1 to {len(names)} ({", ".join(names)}). '
                    f'Is it the file of another class? {DOWNLOAD_AGAIN}'
                )
            rois[roi_class] = np.maximum(labels, 0)
            self.sources.append(path)
        noise_ceiling = np.full(len(vertex), np.nan)
        if test_data is not None:
            path = Path(test_data) / subject / f'test_split/noise_ceiling/{name}_noise_ceiling.npy'
            noise_ceiling = 100 * self._fitting(path, _load(path, 1))
            low, high = np.nanmin(noise_ceiling) / 100, np.nanmax(noise_ceiling) / 100
            if not 0 <= low <= high <= 1:
                raise ValueError(f'{path} holds {low:.3g} to {high:.3g}, not fractions of variance. Is it in percent?')
            self.sources.append(path)
        self.columns = np.flatnonzero(np.any(list(rois.values()), axis=0))
        self.rois = {roi_class: labelled[self.columns] for roi_class, labelled in rois.items()}
        self.vertex = vertex[self.columns]
        self.coordinates = coordinates[self.vertex]
        self.noise_ceiling = noise_ceiling[self.columns]

    def _fitting(self, path: Path, values: np.ndarray) -> np.ndarray:
        if len(values) != self.responses.shape[1]:
            raise ValueError(
                f'{path} has {len(values)} vertices, but {self.sources[0]} has {self.responses.shape[1]}. They belong '
                'to different subjects or hemispheres; download both again.'
            )
        return values

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read the (rows, V) responses to some images; ValueError if a value is not finite."""
        values = self.responses[rows][:, self.columns]
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise ValueError(
                f'{self.sources[0]}: {len(bad)} value(s) are not finite, the first is {values[tuple(bad[0])]} in row '
                f'{rows[bad[0, 0]] + 1}, column {self.columns[bad[0, 1]] + 1}. {DOWNLOAD_AGAIN}'
            )
        return values


def _load(path: Path, ndim: int, kinds: str = 'buif') -> np.ndarray:
    """Map a ``.npy`` file of numbers into memory, without running what a pickle in it asks for."""
    existing(path, 'file of the Algonauts data', DOWNLOAD_AGAIN)
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f'{path} cannot be read as a .npy file: {error}. {DOWNLOAD_AGAIN}') from error
    if array.ndim != ndim or array.dtype.kind not in kinds:
        expected = 'floating-point numbers' if kinds == 'f' else 'numbers'
        raise ValueError(
            f'{path} holds {array.dtype} of shape {array.shape}; expected {ndim} dimension(s) of {expected}. '
            f'{DOWNLOAD_AGAIN}'
        )
    return array


class SplitRule(NamedTuple):
    """Choose the training images that become the test split of a store.

    Attributes:
        stim_info: ``nsd_stim_info_merged.csv``: test = the images of its column ``shared1000``. None: drawn at random.
        fraction: Share of the images that are drawn, between 0 and 1.
        seed: Of the draw. An image is drawn for all subjects or for none, so that no subject's test image is among
            another's training images.
    """

    stim_info: Optional[Path] = None
    fraction: float = 0.1
    seed: int = 0

    @property
    def rule(self) -> str:
        """Put the rule into words."""
        if self.stim_info is not None:
            return 'test = shared1000 images'
        return f'test = images drawn with probability {self.fraction}, seed {self.seed}, the same for all subjects'

    def is_test(self, image_id: np.ndarray) -> np.ndarray:
        """Decide for (images,) 0-based 73k ids which are test images, (images,) bool.

        Raises:
            ValueError: If an argument is out of range, or one of the splits is empty.
            FileNotFoundError: If the table is missing.
        """
        if self.stim_info is not None:
            table = read_stim_info(self.stim_info, ('nsdId', 'shared1000'))
            test = np.isin(image_id, table.nsdId[table.shared1000 == 1])
        elif not 0 < self.fraction < 1 or self.seed < 0:
            raise ValueError(
                f'test-fraction is {self.fraction} and seed is {self.seed}; the fraction must be between 0 and 1, the '
                'seed 0 or more.'
            )
        else:
            test = np.random.default_rng(self.seed).random(image_id.max() + 1)[image_id] < self.fraction
        if not test.any() or test.all():
            raise ValueError(
                f'{self.rule}: that gives {test.sum()} test and {(~test).sum()} training images; both are needed. '
                f'Change {"the table" if self.stim_info is not None else "the fraction or the seed"}.'
            )
        return test


def prepare(
    root: PathLike,
    store: PathLike,
    subjects: Optional[Sequence[str]] = None,
    fsaverage: Optional[PathLike] = None,
    split: Optional[SplitRule] = None,
    image_size: Optional[int] = None,
    test_data: Optional[PathLike] = None,
    progress: bool = True,
) -> List[Path]:
    """Write the ROI stores of some subjects from the challenge's training data, as released.

    Args:
        root: The folder that holds ``subj01`` … ``subj08``.
        store: Folder of the stores.
        subjects: E.g. ``['subj01', 'subj06']``; all that are there if None.
        fsaverage: Folder of the white surfaces of fsaverage, see :func:`read_white_surface`.
        split: The images that become the test split; by default a tenth, drawn at random.
        image_size: Side in pixels of the images in ``images_<size>.h5``; None for no images.
        test_data: Folder of the challenge's test data, whose noise ceilings are taken; None leaves them unknown.
        progress: Show progress bars.

    Returns:
        Paths of ``subj0N.h5``, see :class:`.store.StoreTables`, and of the images. Repeats and ncsnr are not known.

    Raises:
        FileNotFoundError, ValueError: For missing or wrong input, naming file or argument; stores that were complete
            by then stay.
    """
    if image_size is not None and image_size < 16:
        raise ValueError(f'image-size is {image_size}; it must be at least 16 pixels.')
    subjects = find_subjects(root) if subjects is None else subjects
    paths = []
    for subject in subjects:
        image_id, images = find_images(root, subject)
        halves = [Hemisphere(Path(root), subject, name, fsaverage, test_data) for name in HEMISPHERES]
        paths.append(_write_store(Path(store), subject, image_id, images, halves, split or SplitRule(), progress))
    if image_size is not None:
        files = {int(i): file for subject in subjects for i, file in zip(*find_images(root, subject))}
        source = 'Algonauts 2023 training_images'
        paths.append(write_image_store(store, files, image_size, lambda i: _read_image(files[i]), source, progress))
    return paths


def _write_store(
    store: Path,
    subject: str,
    image_id: np.ndarray,
    images: List[Path],
    halves: List[Hemisphere],
    split: SplitRule,
    progress: bool,
) -> Path:
    path = store / f'{subject}.h5'
    earlier_store(path, 'fsaverage')
    for half in halves:
        if len(half.responses) != len(images):
            raise ValueError(
                f'{half.sources[0]} has {len(half.responses)} rows, but {images[0].parent} has {len(images)} images. '
                f'{DOWNLOAD_AGAIN}'
            )
    vertex = np.concatenate([half.vertex for half in halves]).astype(np.int32)
    if not len(vertex):
        raise ValueError(f'no vertex of {subject} has a label of {", ".join(ROI_CLASSES)}. {DOWNLOAD_AGAIN}')
    rows = np.argsort(image_id)
    is_test = split.is_test(image_id[rows])
    sources = [file for half in halves for file in half.sources]
    if split.stim_info is not None:
        sources.append(split.stim_info)
    tables = StoreTables(
        subject=subject,
        image_id=image_id[rows],
        repeats=np.zeros(len(rows)),
        is_test=is_test,
        seen_by_all=np.zeros(len(rows), bool),
        coordinates=np.concatenate([half.coordinates for half in halves]),
        rois={
            name: ROILabels(np.concatenate([half.rois[name] for half in halves]), dict(enumerate(labels, 1)))
            for name, labels in ROI_LABELS.items()
        },
        hemisphere=np.repeat(HEMISPHERES, [len(half.vertex) for half in halves]),
        ncsnr=np.full(len(vertex), np.nan),
        noise_ceiling=np.concatenate([half.noise_ceiling for half in halves]),
        location=dict(vertex=vertex),
        attributes=dict(
            beta_version='algonauts2023',
            normalization='as released (z-scored within session, averaged)',
            space='fsaverage',
            split_rule=split.rule,
            sources=[f'{file.name} {file.stat().st_size}' for file in sources],
        ),
    )
    with atomic_h5(path, len(rows) * len(vertex) * np.dtype(np.float32).itemsize) as file:
        responses = file.create_dataset('responses', (len(rows), len(vertex)), np.float32)
        with progress_bar(total=len(rows), desc=subject, unit='image', show=progress) as bar:
            for start in range(0, len(rows), ROWS_PER_BLOCK):
                block = rows[start : start + ROWS_PER_BLOCK]
                responses[start : start + len(block)] = np.concatenate([half.read(block) for half in halves], axis=1)
                bar.update(len(block))
        tables.write(file)
    return path


def _read_image(path: Path) -> np.ndarray:
    """Read a square image as (S, S, 3) uint8 RGB."""
    from PIL import Image  # the only place in mmnfn.nsd that needs Pillow

    try:
        with Image.open(path) as opened:
            image = np.asarray(opened.convert('RGB'))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises a SyntaxError for some damaged PNG files
        raise ValueError(f'{path} cannot be read as an image: {error}. {DOWNLOAD_AGAIN}') from error
    if image.shape[0] != image.shape[1]:
        raise ValueError(f"{path} is {image.shape[1]}x{image.shape[0]} pixels; NSD's images are square.")
    return image
