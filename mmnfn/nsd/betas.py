"""Single-trial responses: reading the wanted voxels of a session, and normalising them.

A session file of NSD keeps each voxel's 750 trials side by side (chunks (750, 1, 1, 1), not compressed). They are read
as chunks, straight into the result, without HDF5's selections, which takes about 7 µs a voxel
(``benchmarks/read_betas.py``); h5py's slices, run by run along x, take 1.1 to 1.4 times as long.
"""

from __future__ import annotations

import gzip
import warnings
from itertools import repeat
from pathlib import Path
from typing import IO, Optional, Tuple

import h5py
import nibabel as nib
import numpy as np

from .release import BETA_SCALE, TRIALS_PER_SESSION, existing


def read_betas(path: Path, index: np.ndarray, shape: Tuple[int, int, int]) -> np.ndarray:
    """Read the betas of some voxels in one session, as stored.

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
    try:
        if path.name.endswith('.nii.gz'):
            with gzip.open(path) as stream:
                return _read_nifti(stream, index, shape)
        with h5py.File(path, 'r') as file:
            betas = file['betas']
            _check(betas.shape, betas.dtype, (TRIALS_PER_SESSION, *reversed(shape)))
            if betas.chunks == (TRIALS_PER_SESSION, 1, 1, 1) and betas.id.get_create_plist().get_nfilters() == 0:
                return _read_chunks(betas, index)
            warnings.warn(
                f'{path.parent}: "betas" has chunks {betas.chunks} with compression {betas.compression}, not '
                f'{(TRIALS_PER_SESSION, 1, 1, 1)} without; this copy is read a slower way.',
                stacklevel=2,
            )
            return _read_slabs(betas, index)
    except Exception as error:  # h5py, gzip and nibabel raise many kinds for a damaged file
        raise ValueError(f'{path} cannot be read as betas: {error}. Download it again.') from error


def check_session(path: Path, shape: Tuple[int, int, int]) -> None:
    """Check the header of a session file, in milliseconds; errors as in :func:`read_betas`."""
    read_betas(path, np.empty((0, 3), int), shape)


def _check(found: Tuple[int, ...], dtype: np.dtype, expected: Tuple[int, ...], scaled: bool = False) -> None:
    """Raise a ValueError if a file holds something else than unscaled int16 of the expected shape."""
    if found != expected or dtype.newbyteorder('=') != np.int16 or scaled:
        raise ValueError(
            f'the betas are {"scaled " * scaled}{dtype} {found}, expected int16 {expected} like the ROI files; is it '
            'the file of another subject or space?'
        )


def _read_chunks(betas: h5py.Dataset, index: np.ndarray) -> np.ndarray:
    """Read chunk by chunk, as they lie in the file."""
    out = np.empty((len(index), TRIALS_PER_SESSION), betas.dtype)
    read = betas.id.read_direct_chunk
    try:
        for place, chunk in zip(zip(repeat(0), *index.T[::-1].tolist()), out.view(np.uint8)):
            read(place, None, chunk)
    except RuntimeError:  # a chunk that was never written, which stands for zeros
        return _read_slabs(betas, index)
    return out.astype(np.int16, copy=False)


def _read_slabs(betas: h5py.Dataset, index: np.ndarray) -> np.ndarray:
    """Read through HDF5: whole volumes, as many at a time as a chunk has trials, so that no chunk is read twice."""
    out = np.empty((len(index), TRIALS_PER_SESSION), np.int16)
    x, y, z = index.T
    step = betas.chunks[0] if betas.chunks else 1
    for start in range(0, TRIALS_PER_SESSION, step):
        part = slice(start, start + step)
        out[:, part] = betas[part][:, z, y, x].T
    return out


def _read_nifti(stream: IO[bytes], index: np.ndarray, shape: Tuple[int, int, int]) -> np.ndarray:
    """Read volume by volume, in the memory of one; without any voxel only the header is read."""
    image = nib.Nifti1Image.from_stream(stream)
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    _check(image.shape, image.get_data_dtype(), (*shape, TRIALS_PER_SESSION), scaled)
    out = np.empty((TRIALS_PER_SESSION, len(index)), np.int16)
    if len(index):
        for trial in range(TRIALS_PER_SESSION):
            out[trial] = image.dataobj[..., trial][tuple(index.T)]
        stream.read()  # at the end gzip compares its checksum
    return np.ascontiguousarray(out.T)


def normalize_session(betas: np.ndarray, reference: Optional[np.ndarray]) -> np.ndarray:
    """Convert the int16 betas of a session to percent signal change, z-scored per voxel.

    Args:
        betas: (V, 750) int16, percent signal change × 300.
        reference: (750,) bool, the trials that give mean and std (ddof 1); None leaves percent signal change.

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
        raise ValueError(f'reference has {count} trials; a std needs at least 2.')
    chosen = betas[:, reference].astype(np.int64)  # sums of int16 are exact
    total = chosen.sum(1)
    variance = (count * np.einsum('vt,vt->v', chosen, chosen) - total**2) / (count * (count - 1))
    variance[variance == 0] = np.nan
    mean = total / count
    whole = np.rint(mean)
    values = betas - whole.astype(np.float32)[:, None]  # exact, so that small differences from a large mean stay right
    values -= (mean - whole).astype(np.float32)[:, None]
    return values / np.sqrt(variance).astype(np.float32)[:, None]
