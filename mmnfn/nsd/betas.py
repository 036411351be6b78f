"""Single-trial responses: reading the wanted voxels of a session, and normalising them.

A session file of NSD keeps each voxel's 750 trials side by side (chunks (750, 1, 1, 1), not compressed), so a voxel is
1500 bytes at one place of the file. They are read as chunks, straight into the result, without HDF5's selections: the
fastest way that leaves it to HDF5 to find them, about 7 µs a voxel (``benchmarks/read_betas.py``). h5py's slices, run
by run along x, take 1.1 to 1.4 times as long, and asking h5py for the place of a chunk goes through all 700,000.
"""

from __future__ import annotations

import os
import warnings
from itertools import repeat
from pathlib import Path
from typing import Optional, Tuple

import h5py
import numpy as np

from .files import Unsuitable, existing
from .hdf5 import plain_dataset
from .release import BETA_SCALE, TRIALS_PER_SESSION
from .volumes import stream_volumes

SLAB_BYTES = 64 << 20
UNREAD = 0x81
"""Last byte of a chunk before it is read; afterwards it means a short or missing one, or -108 % in the last trial."""


def read_betas(path: Path, index: np.ndarray, shape: Tuple[int, int, int]) -> np.ndarray:
    """Betas of some voxels in one session, as stored.

    Args:
        path: ``betas_sessionNN.hdf5`` or ``betas_sessionNN.nii.gz``.
        index: (V, 3) x, y, z.
        shape: Volume (X, Y, Z) that the file must have.

    Returns:
        (V, 750) int16.

    Raises:
        FileNotFoundError, ValueError: If the file is missing, damaged or of another shape or type.

    Warns:
        UserWarning: If the file is not chunked voxel by voxel, and is read a slower way.
    """
    existing(path, 'session of betas', 'Download it, or restrict the sessions.')
    if path.name.endswith('.nii.gz'):
        return _read_nifti(path, index, shape)
    try:
        with h5py.File(path, 'r') as file:
            betas = _checked_dataset(file, path, shape)
            if _one_chunk_per_voxel(betas) and betas.id.get_create_plist().get_nfilters() == 0:
                return _read_chunks(betas, index)
            warnings.warn(
                f'{path.parent}: "betas" has chunks {betas.chunks} with compression {betas.compression}, not '
                f'{(TRIALS_PER_SESSION, 1, 1, 1)} without; this copy is read a slower way.',
                stacklevel=2,
            )
            return _read_runs(betas, index) if _one_chunk_per_voxel(betas) else _read_slabs(betas, index)
    except Unsuitable:
        raise
    except Exception as error:  # HDF5 raises many kinds for a damaged file
        raise ValueError(f'{path} cannot be read as HDF5: {error}. Download it again.') from error


def check_session(path: Path, shape: Tuple[int, int, int]) -> None:
    """Look at the head of a session file, in milliseconds; errors as :func:`read_betas`."""
    existing(path, 'session of betas', 'Download it, or restrict the sessions.')
    if path.name.endswith('.nii.gz'):
        next(stream_volumes(path, (*shape, TRIALS_PER_SESSION)))
    else:
        read_betas(path, np.empty((0, 3), int), shape)


def _checked_dataset(file: h5py.File, path: Path, shape: Tuple[int, int, int]) -> h5py.Dataset:
    betas = plain_dataset(file, 'betas')
    if betas is None:
        raise Unsuitable(f'{path} has no dataset "betas". Is it a beta file?')
    expected = (TRIALS_PER_SESSION, *reversed(shape))
    if betas.shape != expected or betas.dtype.newbyteorder('=') != np.int16:
        raise Unsuitable(
            f'{path}: dataset "betas" is {betas.dtype} {betas.shape}, expected int16 {expected} as the ROI files have '
            'it. Is it the file of another subject or space?'
        )
    return betas


def _one_chunk_per_voxel(betas: h5py.Dataset) -> bool:
    return betas.chunks == (TRIALS_PER_SESSION, 1, 1, 1)


def _read_chunks(betas: h5py.Dataset, index: np.ndarray) -> np.ndarray:
    """Chunk by chunk, as they lie in the file."""
    size, read = TRIALS_PER_SESSION * betas.dtype.itemsize, betas.id.read_direct_chunk
    # HDF5 copies as many bytes as its index says that a chunk has: one that claims the whole file must find room behind
    # the others. What is not used of it never becomes memory.
    room = np.empty(len(index) * size + os.path.getsize(betas.file.filename), np.uint8)
    chunks = room[: len(index) * size].reshape(-1, size)
    chunks[:, -1] = UNREAD
    try:
        for place, chunk in zip(zip(repeat(0), *index.T[::-1].tolist()), chunks):
            read(place, None, chunk)
    except RuntimeError:  # a chunk that was never written, which stands for zeros
        pass
    if (chunks[:, -1] == UNREAD).any():
        # Only now are all lengths asked for, which takes HDF5 through the whole index.
        if betas.id.get_storage_size() != betas.id.get_num_chunks() * size:
            raise ValueError(f'it has chunks of other than {size} bytes')
        return _read_runs(betas, index)
    room.resize(chunks.size, refcheck=False)
    return room.view(betas.dtype).reshape(-1, TRIALS_PER_SESSION).astype(np.int16, copy=False)


def _read_runs(betas: h5py.Dataset, index: np.ndarray) -> np.ndarray:
    """Through HDF5, run by run along x, the direction in which the voxels of a file lie side by side."""
    out = np.empty((len(index), TRIALS_PER_SESSION), np.int16)
    x, y, z = index.T
    breaks = (np.diff(x) != 1) | (np.diff(y) != 0) | (np.diff(z) != 0)
    starts = np.flatnonzero(np.r_[True, breaks])[: len(index)]
    for start, stop in zip(starts, np.r_[starts[1:], len(index)]):
        out[start:stop] = betas[:, z[start], y[start], x[start] : x[start] + stop - start].T
    return out


def _read_slabs(betas: h5py.Dataset, index: np.ndarray) -> np.ndarray:
    """Through HDF5, in slabs that cut no chunk in trials and z, so that no chunk is read twice."""
    out = np.empty((len(index), TRIALS_PER_SESSION), np.int16)
    if not len(index):
        return out
    x, y, z = index.T
    (x0, x1), (y0, y1) = (x.min(), x.max() + 1), (y.min(), y.max() + 1)
    chunk_t, chunk_z = betas.chunks[:2] if betas.chunks else (1, 1)
    smallest = chunk_t * chunk_z * int(y1 - y0) * int(x1 - x0) * out.itemsize
    step_z = chunk_z * max(1, SLAB_BYTES // smallest)
    step_t = chunk_t * max(1, SLAB_BYTES // (smallest * -(-min(step_z, betas.shape[1]) // chunk_z)))
    for z0 in range(int(z.min()) // chunk_z * chunk_z, int(z.max()) + 1, step_z):
        inside = np.flatnonzero((z >= z0) & (z < z0 + step_z))
        if inside.size:
            for t0 in range(0, TRIALS_PER_SESSION, step_t):
                slab = betas[t0 : t0 + step_t, z0 : z0 + step_z, y0:y1, x0:x1]
                out[inside, t0 : t0 + step_t] = slab[:, z[inside] - z0, y[inside] - y0, x[inside] - x0].T
    return out


def _read_nifti(path: Path, index: np.ndarray, shape: Tuple[int, int, int]) -> np.ndarray:
    out = np.empty((TRIALS_PER_SESSION, len(index)), np.int16)
    x, y, z = index.T
    for trial, volume in enumerate(stream_volumes(path, (*shape, TRIALS_PER_SESSION))):
        out[trial] = volume[x, y, z]
    return np.ascontiguousarray(out.T)


def normalize_session(betas: np.ndarray, reference: Optional[np.ndarray]) -> np.ndarray:
    """int16 betas of a session → percent signal change, z-scored per voxel.

    Args:
        betas: (V, 750) int16, percent signal change × 300.
        reference: (750,) bool, the trials that mean and deviation (ddof 1) come from; None leaves percent signal
            change.

    Returns:
        (V, 750) float32; NaN for voxels without data in the session (0 in every trial) or without variance in the
        reference trials.

    Raises:
        ValueError: If there are fewer than two reference trials.
    """
    if reference is None:
        values = betas / np.float32(BETA_SCALE)
        values[~betas.any(1)] = np.nan
        return values
    count = int(reference.sum())
    if count < 2:
        raise ValueError(f'reference has {count} trials; a deviation needs at least 2.')
    chosen = betas[:, reference].astype(np.int64)  # sums of int16 are exact
    total = chosen.sum(1)
    variance = (count * np.einsum('vt,vt->v', chosen, chosen) - total**2) / (count * (count - 1))
    variance[variance == 0] = np.nan
    mean = total / count
    whole = np.rint(mean)
    values = betas - whole.astype(np.float32)[:, None]  # exact, so that a small deviation from a large mean stays right
    values -= (mean - whole).astype(np.float32)[:, None]
    return values / np.sqrt(variance).astype(np.float32)[:, None]
