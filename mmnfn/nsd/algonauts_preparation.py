"""From the Algonauts 2023 data to ROI stores."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Union

import numpy as np
from PIL import Image

from mmnfn.utils import progress_bar

from .algonauts import DOWNLOAD_AGAIN, HEMISPHERES, AlgonautsLayout, Hemisphere
from .design import read_stim_info
from .fsaverage import REMEDY, read_white_surface
from .images import write_image_store
from .preparation import earlier_store
from .release import ROI_CLASSES
from .store import StoreTables, atomic_h5

ROWS_PER_BLOCK = 256
"""The files are stored image by image, so that blocks of images are read in one piece."""


class SplitRule(NamedTuple):
    """Which of the training images become the test split of the store.

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
        """The rule in words."""
        if self.stim_info is not None:
            return 'test = shared1000 images'
        return f'test = images drawn with probability {self.fraction}, seed {self.seed}, the same for all subjects'

    def is_test(self, image_id: np.ndarray) -> np.ndarray:
        """(images,) bool of (images,) 0-based 73k ids.

        Raises:
            ValueError: If an argument is out of range, or one of the splits is empty.
            FileNotFoundError: If the table is missing.
        """
        if self.stim_info is not None:
            table = read_stim_info(self.stim_info, ('nsdId', 'shared1000')).set_index('nsdId')
            unknown = sorted(set(image_id.tolist()) - set(table.index.tolist()))
            if unknown:
                raise ValueError(
                    f'{self.stim_info} has no nsdId {unknown[0]} (0-based), which the training images have.'
                )
            test = (table.shared1000.loc[image_id] == 1).to_numpy()
        else:
            if not 0 < self.fraction < 1:
                raise ValueError(f'test-fraction is {self.fraction}; it must be between 0 and 1.')
            if self.seed < 0:
                raise ValueError(f'seed is {self.seed}; it must be 0 or more.')
            test = np.random.default_rng(self.seed).random(image_id.max() + 1)[image_id] < self.fraction
        if not test.any() or test.all():
            raise ValueError(
                f'{self.rule}: that gives {test.sum()} test and {(~test).sum()} training images; both are needed. '
                f'Change {"the table" if self.stim_info is not None else "the fraction or the seed"}.'
            )
        return test


class Vertices(NamedTuple):
    """The V vertices of a store, left hemisphere first, each in the order of the files.

    Attributes:
        columns: Hemisphere → which columns of its responses are taken.
        rois: ROI class → ascending indices into the V vertices.
        coordinates: (V, 3) mm.
        vertex: (V,) index in fsaverage.
        hemisphere: (V,) ``b'lh'`` or ``b'rh'``.
        surfaces: Files of the coordinates.
    """

    columns: Dict[str, np.ndarray]
    rois: Dict[str, np.ndarray]
    coordinates: np.ndarray
    vertex: np.ndarray
    hemisphere: np.ndarray
    surfaces: List[Path]


def select_vertices(hemispheres: Dict[str, Hemisphere], fsaverage: Optional[Union[str, Path]]) -> Vertices:
    """Union of the six ROI classes over both hemispheres; an empty class is legal.

    Raises:
        FileNotFoundError: If the fsaverage surfaces are missing.
        ValueError: If they have another number of vertices, or no ROI has a vertex.
    """
    columns, coordinates, vertex, surfaces = {}, [], [], []
    rois: Dict[str, List[np.ndarray]] = {name: [] for name in ROI_CLASSES}
    count = 0
    for name, data in hemispheres.items():
        surface = read_white_surface(fsaverage, name)
        if len(surface.coordinates) != data.surface_size:
            raise ValueError(
                f'{surface.path} has {len(surface.coordinates)} vertices, but the masks of {name} are for a surface of '
                f'{data.surface_size}. {REMEDY}'
            )
        union = np.any(list(data.rois.values()), axis=0)
        columns[name] = np.flatnonzero(union)
        vertex.append(data.vertex[union])
        coordinates.append(surface.coordinates[vertex[-1]])
        surfaces.append(surface.path)
        for roi_class, mask in data.rois.items():
            rois[roi_class].append(count + np.flatnonzero(mask[union]))
        count += len(columns[name])
    if not count:
        raise ValueError(f'no vertex of the subject has a label of {", ".join(ROI_CLASSES)}. {DOWNLOAD_AGAIN}')
    return Vertices(
        columns,
        {name: np.concatenate(parts) for name, parts in rois.items()},
        np.concatenate(coordinates),
        np.concatenate(vertex).astype(np.int32),
        np.repeat(np.asarray(list(columns), 'S2'), [len(v) for v in vertex]),
        surfaces,
    )


def prepare_subject(
    layout: AlgonautsLayout,
    store: Union[str, Path],
    subject: str,
    fsaverage: Optional[Union[str, Path]],
    split: Optional[SplitRule] = None,
    progress: bool = True,
    test_data: Optional[Union[str, Path]] = None,
) -> Path:
    """Write the ROI store of one subject from the challenge's training data, as released.

    Args:
        layout: The data.
        store: Folder of the stores.
        subject: ``'subj0N'``.
        fsaverage: Folder of the white surfaces of fsaverage, see :func:`.fsaverage.read_white_surface`.
        split: Which images become the test split; by default a tenth, drawn at random.
        progress: Show a progress bar.
        test_data: Folder of the challenge's test data, whose noise ceilings are taken; None leaves them unknown.

    Returns:
        Path of ``subj0N.h5``; see :class:`.store.StoreTables`. Repeats and ncsnr are not known.

    Raises:
        FileNotFoundError, ValueError: For missing or wrong input, naming file or argument; nothing is left then.
    """
    path = Path(store) / f'{subject}.h5'
    earlier_store(path, 'fsaverage')
    split = SplitRule() if split is None else split
    images = layout.images(subject)
    hemispheres = {name: layout.hemisphere(subject, name) for name in HEMISPHERES}
    for name, data in hemispheres.items():
        if len(data.responses) != len(images.paths):
            raise ValueError(
                f'{layout.response_file(subject, name)} has {len(data.responses)} rows, but '
                f'{layout.image_dir(subject)} has {len(images.paths)} pictures. {DOWNLOAD_AGAIN}'
            )
    vertices = select_vertices(hemispheres, fsaverage)
    rows = np.argsort(images.image_id)
    image_id = images.image_id[rows]
    unknown = np.full(len(vertices.vertex), np.nan)
    noise_ceiling, ceiling_files = unknown, []
    if test_data is not None:
        fractions = [
            layout.noise_ceiling(test_data, subject, name, len(data.vertex))[vertices.columns[name]]
            for name, data in hemispheres.items()
        ]
        noise_ceiling = 100 * np.concatenate(fractions)
        ceiling_files = [layout.ceiling_file(test_data, subject, name) for name in hemispheres]
    tables = StoreTables(
        subject=subject,
        image_id=image_id,
        repeats=np.zeros(len(rows)),
        is_test=split.is_test(image_id),
        seen_by_all=np.zeros(len(rows), bool),
        coordinates=vertices.coordinates,
        rois=vertices.rois,
        ncsnr=unknown,
        noise_ceiling=noise_ceiling,
        location=dict(vertex=vertices.vertex, hemisphere=vertices.hemisphere),
        attributes=dict(
            beta_version='algonauts2023',
            normalization='as released (z-scored within session, averaged)',
            space='fsaverage',
            split_rule=split.rule,
            sources=[
                *(f'{path.relative_to(layout.root)} {path.stat().st_size}' for path in layout.files(subject)),
                *(f'{path.name} {path.stat().st_size}' for path in (*vertices.surfaces, *ceiling_files)),
                *([] if split.stim_info is None else [f'{split.stim_info.name} {split.stim_info.stat().st_size}']),
            ],
        ),
    )
    size = len(rows) * len(vertices.vertex) * np.dtype(np.float32).itemsize
    with atomic_h5(path, size) as file:
        responses = file.create_dataset('responses', (len(rows), len(vertices.vertex)), np.float32)
        with progress_bar(total=len(rows), desc=subject, unit='image', show=progress) as bar:
            for start in range(0, len(rows), ROWS_PER_BLOCK):
                block = rows[start : start + ROWS_PER_BLOCK]
                responses[start : start + len(block)] = np.concatenate(
                    [
                        _take(layout.response_file(subject, name), data.responses, block, vertices.columns[name])
                        for name, data in hemispheres.items()
                    ],
                    axis=1,
                )
                bar.update(len(block))
        tables.write(file)
    return path


def _take(path: Path, responses: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(rows, columns) of a memory map; ValueError where a value is not finite."""
    values = responses[rows][:, columns]
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = rows[bad[0, 0]], columns[bad[0, 1]]
        raise ValueError(
            f'{path}: {len(bad)} value(s) are not finite, the first is {values[tuple(bad[0])]} in row {row + 1}, '
            f'column {column + 1}. {DOWNLOAD_AGAIN}'
        )
    return values


def prepare_images(
    layout: AlgonautsLayout, store: Union[str, Path], subjects: Sequence[str], size: int, progress: bool = True
) -> Path:
    """Write ``images_<size>.h5``: the training pictures of some subjects, resized, as memory-mappable uint8 RGB
    (images, size, size, 3). A picture of several subjects is taken from the first; what an earlier call wrote there
    stays in it.

    Raises:
        FileNotFoundError, ValueError: If a picture is missing, damaged or not square; nothing is left then.
    """
    paths: Dict[int, Path] = {}
    for subject in subjects:
        images = layout.images(subject)
        for image_id, path in zip(images.image_id.tolist(), images.paths):
            paths.setdefault(image_id, path)
    return write_image_store(
        Path(store),
        paths,
        size,
        lambda image_id: _read_image(paths[image_id]),
        'Algonauts 2023 training_images',
        progress,
    )


def _read_image(path: Path) -> np.ndarray:
    """Read a square image, (S, S, 3) uint8 RGB."""
    try:
        with Image.open(path) as image:
            picture = np.asarray(image.convert('RGB'))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises a SyntaxError for some damaged PNG files
        raise ValueError(f'{path} cannot be read as a picture: {error}. {DOWNLOAD_AGAIN}') from error
    if picture.shape[0] != picture.shape[1]:
        raise ValueError(f"{path} is {picture.shape[1]}x{picture.shape[0]} pixels; NSD's pictures are square.")
    return picture


def prepare(
    layout: AlgonautsLayout,
    store: Union[str, Path],
    subjects: Sequence[str],
    fsaverage: Optional[Union[str, Path]],
    split: Optional[SplitRule] = None,
    image_size: Optional[int] = None,
    progress: bool = True,
    test_data: Optional[Union[str, Path]] = None,
) -> List[Path]:
    """Write the stores of several subjects and, with ``image_size``, their pictures; see :func:`prepare_subject`.

    Raises:
        FileNotFoundError, ValueError: See :func:`prepare_subject`; stores that were complete by then stay.
    """
    if image_size is not None and image_size < 16:
        raise ValueError(f'image-size is {image_size}; it must be at least 16 pixels.')
    paths = [prepare_subject(layout, store, subject, fsaverage, split, progress, test_data) for subject in subjects]
    if image_size is not None:
        paths.append(prepare_images(layout, store, subjects, image_size, progress))
    return paths
