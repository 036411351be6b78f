"""From the single trials of the voxels to their mean responses and ncsnr, block of voxels by block."""

from __future__ import annotations

from typing import Optional, Tuple

import h5py
import numpy as np

from .betas import normalize_session
from .extraction import Extraction
from .noise_ceiling import estimate_ncsnr
from .presentations import Presentations
from .release import TRIALS_PER_SESSION, NSDLayout
from .volumes import read_volume
from .voxels import Voxels

VOXELS_PER_BLOCK = 2048
MAX_NCSNR = 5
"""Of the 99th percentile of a map. An ncsnr of 5 would be a ceiling of 98.7 % for three repeats, which no voxel has;
ceilings in percent are above 5 wherever a brain answers to images."""


def add_rows(total: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """``total[rows] += values``, where a row may occur several times."""
    order = np.argsort(rows, kind='stable')
    ordered = rows[order]
    occurrence = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
    for k in range(occurrence.max() + 1):
        part = order[occurrence == k]
        total[rows[part]] += values[part]


def average_repeats(
    extraction: Extraction, shown: Presentations, block: slice, trials: Optional[h5py.Dataset] = None
) -> Tuple[np.ndarray, int, int]:
    """Mean response of a block of voxels to each image.

    Args:
        extraction: The raw betas.
        shown: What was shown.
        block: The voxels.
        trials: Data set (trials, V) that gets the single-trial responses, NaN where there is no data.

    Returns:
        (images, block) float32 with 0 where there is no data at all; the number of voxel-sessions without data; the
        number of saturated values.
    """
    limits = np.iinfo(np.int16)
    total = np.zeros((len(shown.image_id), block.stop - block.start), np.float32)
    count = np.zeros(total.shape, np.uint8)
    invalid = saturated = 0
    for position, session in enumerate(shown.sessions):
        part = shown.trials(position)
        betas = extraction.read(session, block)
        saturated += int(((betas == limits.max) | (betas == limits.min)).sum())
        values = normalize_session(betas, None if shown.reference is None else shown.reference[part]).T
        if trials is not None:
            trials[part, block] = values.astype(trials.dtype)  # HDF5's own conversion to float16 is wrong
        valid = ~np.isnan(values[0])  # a voxel has data in all trials of a session or in none
        invalid += int((~valid).sum())
        add_rows(total, shown.rows[part], np.where(valid, values, 0))
        add_rows(count, shown.rows[part], np.broadcast_to(valid, values.shape))
    return total / np.maximum(count, 1), invalid, saturated


def read_ncsnr(layout: NSDLayout, subject: str, voxels: Voxels, shown: Presentations) -> Optional[np.ndarray]:
    """ncsnr of the voxels from ``ncsnr.nii.gz``, or None where that is absent and can be estimated.

    Returns:
        (V,) float32, NaN where it is not known.

    Raises:
        ValueError: If the map is damaged, of another shape, NaN in all voxels, or in percent; or if it is absent and no
            image was shown three times.
    """
    path = layout.beta_dir(subject) / 'ncsnr.nii.gz'
    if path.exists():
        volume, _ = read_volume(path, 'ncsnr map')
        if volume.shape != voxels.shape:
            raise ValueError(
                f'{path} has shape {volume.shape}, but the ROI files have {voxels.shape}. They belong to '
                'different subjects or spaces; download them again.'
            )
        ncsnr = volume[tuple(voxels.index.T)]
        if not (ncsnr >= 0).any() or (ncsnr < 0).any() or (ncsnr > np.finfo(np.float32).max).any():
            raise ValueError(f'{path} holds no ncsnr: NaN in all voxels, negative or infinite. Download it again.')
        high = np.percentile(volume[np.isfinite(volume)], 99)
        if high > MAX_NCSNR:
            raise ValueError(
                f'{path}: the 99th percentile is {high:.3g}, but an ncsnr is hardly ever above 2. Does it hold noise '
                'ceilings in percent? Download it again.'
            )
        return ncsnr.astype(np.float32)
    if not (shown.repeats == 3).any():
        raise ValueError(
            f'{path} does not exist, and no image was shown three times in the {len(shown.sessions)} session(s) of '
            f'{subject}, so ncsnr cannot be estimated. Download the file, or use more sessions.'
        )
    return None


def ncsnr_of_repeats(voxels: Voxels, shown: Presentations, extraction: Extraction) -> np.ndarray:
    """(V,) float32 ncsnr estimated from the images shown three times."""
    order = np.argsort(shown.rows, kind='stable')
    trials = order[shown.repeats[shown.rows[order]] == 3].reshape(-1, 3)
    everything = np.ones(TRIALS_PER_SESSION, bool)
    ncsnr = np.empty(len(voxels.index), np.float32)
    for start in range(0, len(ncsnr), VOXELS_PER_BLOCK // 8):
        block = slice(start, min(start + VOXELS_PER_BLOCK // 8, len(ncsnr)))
        values = [normalize_session(extraction.read(session, block), everything) for session in shown.sessions]
        ncsnr[block] = estimate_ncsnr(np.concatenate(values, 1).T[trials])
    return ncsnr
