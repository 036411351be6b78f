"""Single-trial responses: reading and normalising the betas of a session."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

import h5py
import numpy as np

from .nsd_layout import BETA_SCALE, TRIALS_PER_SESSION, existing


def read_betas(path: Path, index: np.ndarray, shape: Tuple[int, int, int]) -> np.ndarray:
    """Betas of some voxels in one session, as stored.

    Reads run by run along x, the direction in which the voxels of a file lie side by side.

    Args:
        path: ``betas_sessionNN.hdf5``.
        index: (V, 3) x, y, z in raster order.
        shape: Volume (X, Y, Z) that the file must have.

    Returns:
        (750, V) int16.

    Raises:
        FileNotFoundError, ValueError: If the file is missing, damaged or of another shape.
    """
    existing(path, 'session of betas', 'Download it, or restrict the sessions.')
    expected = (TRIALS_PER_SESSION,) + tuple(reversed(shape))
    try:
        with h5py.File(path, 'r') as file:
            if 'betas' not in file:
                raise ValueError(f'{path} has no dataset "betas". Is it a beta file?')
            betas = file['betas']
            if betas.shape != expected or betas.dtype != np.int16:
                raise ValueError(
                    f'{path}: dataset "betas" is {betas.dtype} {betas.shape}, expected int16 {expected} as the '
                    'ROI files have it. Is it the file of another subject or space?'
                )
            out = np.empty((TRIALS_PER_SESSION, len(index)), np.int16)
            x, y, z = index.T
            starts = np.flatnonzero(np.r_[True, (np.diff(x) != 1) | (np.diff(y) != 0) | (np.diff(z) != 0)])
            for start, stop in zip(starts, np.r_[starts[1:], len(index)]):
                out[:, start:stop] = betas[:, z[start], y[start], x[start] : x[start] + stop - start]
            return out
    except OSError as error:
        raise ValueError(f'{path} cannot be read as HDF5: {error}. Download it again.') from error


def normalize_session(betas: np.ndarray, reference: Optional[np.ndarray]) -> np.ndarray:
    """int16 betas of a session → percent signal change, z-scored per voxel.

    Args:
        betas: (750, V).
        reference: (750,) bool, the trials that mean and deviation come from; None leaves percent signal change.

    Returns:
        (750, V) float32; NaN for voxels without data in the session (0 in every trial) or without variance.
    """
    values = betas.astype(np.float32) / np.float32(BETA_SCALE)
    values[:, (betas == 0).all(0)] = np.nan
    if reference is None:
        return values
    mean = values[reference].mean(0, dtype=np.float64)
    deviation = values[reference].std(0, ddof=1, dtype=np.float64)
    deviation[deviation == 0] = np.nan
    return ((values - mean) / deviation).astype(np.float32)


def mixed_noise_ceiling(ncsnr: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """Noise ceiling in percent of variance for responses averaged over 1, 2 or 3 repeats (NSD data manual).

    ``100·ncsnr² / (ncsnr² + (A3/3 + A2/2 + A1/1)/(A1 + A2 + A3))`` where A_n images have n repeats.
    """
    return 100 * ncsnr**2 / (ncsnr**2 + np.mean(1 / repeats))
