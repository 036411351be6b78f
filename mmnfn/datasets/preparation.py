"""From the NSD release tree to ROI stores."""

from __future__ import annotations

from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import cv2
import h5py
import numpy as np
from tqdm import tqdm

from .betas import mixed_noise_ceiling, normalize_session, read_betas
from .nsd_layout import ROI_CLASSES, TRIALS_PER_SESSION, NSDLayout, existing
from .roi_store import atomic_h5

VOXELS_PER_BLOCK = 4096
NORMALIZATIONS = ('train', 'all', 'none')


class Voxels(NamedTuple):
    """The voxels of a store, in the raster order of the beta files (z slowest, x fastest).

    Attributes:
        index: (V, 3) x, y, z.
        rois: ROI class → indices into the V voxels.
        shape: Volume (X, Y, Z).
        affine: (4, 4) voxel index → mm.
    """

    index: np.ndarray
    rois: dict
    shape: Tuple[int, int, int]
    affine: np.ndarray


def select_voxels(layout: NSDLayout, subject: str, roi_classes: Sequence[str]) -> Voxels:
    """Union of the ROI classes; a class that the subject lacks is legal and empty.

    Raises:
        ValueError: If the volumes differ in shape or hold no voxel at all.
    """
    volumes = {name: layout.roi(subject, name) > 0 for name in roi_classes}
    reference = layout.volume(layout.roi_file(subject, roi_classes[0]), 'ROI')
    for name, volume in volumes.items():
        if volume.shape != reference.shape:
            raise ValueError(
                f'{layout.roi_file(subject, name)} has shape {volume.shape}, but '
                f'{layout.roi_file(subject, roi_classes[0])} has {reference.shape}: they belong to different '
                'subjects or spaces. Download the func1pt8mm files again.'
            )
    union = np.any(list(volumes.values()), axis=0)
    if not union.any():
        raise ValueError(f'{subject} has no voxel in {", ".join(roi_classes)}. Choose other ROI classes.')
    z, y, x = np.nonzero(union.transpose(2, 1, 0))
    rank = np.full(union.shape, -1)
    rank[x, y, z] = np.arange(len(x))
    rois = {name: np.sort(rank[volume]) for name, volume in volumes.items()}
    return Voxels(np.stack([x, y, z], -1), rois, union.shape, reference.affine)


def average_repeats(
    layout: NSDLayout,
    subject: str,
    sessions: Sequence[int],
    voxels: Voxels,
    block: slice,
    rows: np.ndarray,
    reference: Optional[np.ndarray],
    bar: tqdm,
) -> Tuple[np.ndarray, int, int]:
    """Mean response of a block of voxels to each image.

    Returns:
        (images, block) float32 with 0 where there is no data at all; the number of voxel-sessions without data; the
        number of saturated values.
    """
    images = rows.max() + 1
    total = np.zeros((images, block.stop - block.start), np.float32)
    count = np.zeros(total.shape, np.uint8)
    invalid = saturated = 0
    limits = np.iinfo(np.int16)
    for position, session in enumerate(sessions):
        part = slice(position * TRIALS_PER_SESSION, (position + 1) * TRIALS_PER_SESSION)
        betas = read_betas(layout.beta_file(subject, session), voxels.index[block], voxels.shape)
        saturated += int(((betas == limits.max) | (betas == limits.min)).sum())
        values = normalize_session(betas, None if reference is None else reference[part])
        valid = ~np.isnan(values)
        invalid += int((~valid).all(0).sum())
        np.add.at(total, rows[part], np.where(valid, values, 0))
        np.add.at(count, rows[part], valid.astype(np.uint8))
        bar.update(values.shape[1])
    return total / np.maximum(count, 1), invalid, saturated


def prepare_subject(
    layout: NSDLayout,
    store: Path,
    subject: str,
    roi_classes: Sequence[str] = ROI_CLASSES,
    max_sessions: Optional[int] = None,
    normalization: str = 'train',
    dtype: str = 'float32',
    progress: bool = True,
) -> Path:
    """Write the ROI store of one subject.

    Betas are divided by 300, z-scored within each session with mean and deviation of the training trials, and
    averaged over the repeats of an image. The test split is the shared images, the training split all others.

    Args:
        layout: The release tree.
        store: Folder of the stores.
        subject: ``'subj0N'``.
        roi_classes: ROI classes to keep.
        max_sessions: Use only the first sessions.
        normalization: Trials that mean and deviation come from: ``'train'``, ``'all'``, or ``'none'`` for percent
            signal change.
        dtype: ``'float32'`` or ``'float16'``.
        progress: Show a progress bar.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError, ValueError: For missing or wrong input, naming file or argument; nothing is left then.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f'normalization is {normalization!r}; it must be one of {", ".join(NORMALIZATIONS)}.')
    if dtype not in ('float16', 'float32'):
        raise ValueError(f'dtype is {dtype!r}; it must be float16 or float32.')
    if not roi_classes:
        raise ValueError('roi_classes is empty; name at least one ROI class.')
    sessions = layout.sessions(subject)[:max_sessions]
    voxels = select_voxels(layout, subject, roi_classes)
    design = layout.design(subject)
    trials = len(sessions) * TRIALS_PER_SESSION
    if trials > len(design.image_id):
        raise ValueError(
            f'{layout.design_file} plans {len(design.image_id)} trials, but {subject} has {len(sessions)} '
            f'sessions ({trials} trials) of betas. The design belongs to another data set.'
        )
    image_id, rows = np.unique(design.image_id[:trials], return_inverse=True)
    is_test = np.zeros(len(image_id), bool)
    is_test[rows[design.shared[:trials]]] = True
    if not is_test.any() or is_test.all():
        raise ValueError(
            f'{layout.design_file}: the {len(sessions)} session(s) of {subject} show {is_test.sum()} shared '
            f'and {(~is_test).sum()} other images; both are needed. Use more sessions.'
        )
    repeats = np.bincount(rows).astype(np.uint8)
    reference = {'train': ~is_test[rows], 'all': np.ones(trials, bool), 'none': None}[normalization]
    ncsnr_file = layout.beta_dir(subject) / 'ncsnr.nii.gz'
    ncsnr = np.asarray(layout.volume(ncsnr_file, 'ncsnr map').dataobj, np.float32)
    if ncsnr.shape != voxels.shape:
        raise ValueError(
            f'{ncsnr_file} has shape {ncsnr.shape}, but the ROI files have {voxels.shape}. They belong to '
            'different subjects or spaces; download them again.'
        )
    ncsnr = ncsnr[tuple(voxels.index.T)]

    path = Path(store) / f'{subject}.h5'
    count = len(voxels.index)
    with atomic_h5(path) as file:
        responses = file.create_dataset('responses', (len(image_id), count), dtype)
        invalid = saturated = 0
        with tqdm(
            total=count * len(sessions), desc=subject, unit='voxel·session', unit_scale=True, disable=not progress
        ) as bar:
            for start in range(0, count, VOXELS_PER_BLOCK):
                block = slice(start, min(start + VOXELS_PER_BLOCK, count))
                responses[:, block], bad, clipped = average_repeats(
                    layout, subject, sessions, voxels, block, rows, reference, bar
                )
                invalid, saturated = invalid + bad, saturated + clipped
        homogeneous = np.c_[voxels.index, np.ones(count)]
        file['coordinates'] = (homogeneous @ voxels.affine.T)[:, :3].astype(np.float32)
        file['voxel'] = voxels.index.astype(np.int16)
        file['affine'] = voxels.affine
        for name, index in voxels.rois.items():
            file[f'roi/{name}'] = index.astype(np.int32)
        file['image_id'] = image_id.astype(np.int64)
        file['repeats'] = repeats
        file['split'] = np.where(is_test, 'test', 'train').astype('S5')
        file['ncsnr'] = ncsnr
        file['noise_ceiling'] = mixed_noise_ceiling(ncsnr, repeats[is_test]).astype(np.float32)
        file.attrs.update(
            subject=subject,
            beta_version=layout.beta_version,
            normalization=normalization,
            volume_shape=voxels.shape,
            invalid_voxel_sessions=invalid,
            saturated_values=saturated,
            split_rule='test = shared images',
            noise_ceiling_unit='percent of variance of the averaged test responses',
            sources=[
                f'{p.relative_to(layout.root)} {p.stat().st_size}'
                for p in [
                    layout.design_file,
                    ncsnr_file,
                    *(layout.roi_file(subject, r) for r in roi_classes),
                    *(layout.beta_file(subject, s) for s in sessions),
                ]
            ],
        )
    return path


def prepare_images(layout: NSDLayout, store: Path, image_ids: np.ndarray, size: int, progress: bool = True) -> Path:
    """Write ``images_<size>.h5``: the pictures of some 73k ids, resized, as memory-mappable uint8 (images, size,
    size, 3).

    Raises:
        FileNotFoundError, ValueError: If the stimulus file is missing or has no such picture.
    """
    source = existing(layout.stimuli_file, 'stimulus file', 'Download nsd_stimuli.hdf5 (39 GB).')
    image_ids = np.unique(image_ids)
    path = Path(store) / f'images_{size}.h5'
    with h5py.File(source, 'r') as stimuli, atomic_h5(path) as file:
        if 'imgBrick' not in stimuli:
            raise ValueError(f'{source} has no dataset "imgBrick". Is it nsd_stimuli.hdf5?')
        bricks = stimuli['imgBrick']
        if image_ids[-1] >= len(bricks):
            raise ValueError(f'{source} holds {len(bricks)} pictures, but 73k id {image_ids[-1]} (0-based) is wanted.')
        images = file.create_dataset('images', (len(image_ids), size, size, 3), np.uint8)
        for row, image_id in enumerate(tqdm(image_ids, desc='pictures', unit='picture', disable=not progress)):
            images[row] = cv2.resize(bricks[image_id], (size, size), interpolation=cv2.INTER_AREA)
        file['image_id'] = image_ids
        file.attrs['source'] = f'{source.name} {source.stat().st_size}'
    return path


def prepare(
    layout: NSDLayout, store: Path, subjects: Sequence[str], image_size: Optional[int] = None, **kwargs
) -> List[Path]:
    """Write the stores of several subjects and, with ``image_size``, their pictures; see :func:`prepare_subject`."""
    paths = [prepare_subject(layout, store, subject, **kwargs) for subject in subjects]
    if image_size is not None:
        ids = []
        for path in paths:
            with h5py.File(path, 'r') as file:
                ids.append(file['image_id'][()])
        paths.append(prepare_images(layout, store, np.concatenate(ids), image_size, kwargs.get('progress', True)))
    return paths
