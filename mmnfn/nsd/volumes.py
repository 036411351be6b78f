"""NIfTI volumes, read whole and with their checksums."""

from __future__ import annotations

import gzip
from math import prod
from pathlib import Path
from typing import Iterator, Tuple

import nibabel as nib
import numpy as np

from .files import Unsuitable, existing

MAX_VOXELS = 1 << 25
"""More than any volume that is read here; those of func1pt8mm have under a million."""
MAX_OFFSET = 1 << 20
"""Bytes of a file before its values: 352, and what scanners' and viewers' notes may take."""
HEAD_BYTES = 348


def read_volume(path: Path, what: str) -> Tuple[np.ndarray, np.ndarray]:
    """Values and affine of a ``.nii.gz`` or ``.nii`` file.

    The file is unpacked to its end, so that gzip's checksum is compared, and not further than its head says.

    Args:
        path: The file.
        what: What it is, for the errors.

    Returns:
        (X, Y, Z) array in the type of the file, scaled if the header asks for it; (4, 4) affine to mm.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or no volume.
    """
    existing(path, what, 'Download it from the NSD release (func1pt8mm).')
    try:
        with gzip.open(path, 'rb') if path.suffix == '.gz' else path.open('rb') as stream:
            head = stream.read(HEAD_BYTES)
            header, offset = _checked_head(head)
            shape, dtype = header.get_data_shape(), header.get_data_dtype()
            if len(shape) != 3 or dtype.kind not in 'iuf':
                raise Unsuitable(
                    f'{path} ({what}) holds {dtype} values of shape {shape}; numbers (X, Y, Z) are expected.'
                )
            if min(shape) < 0 or prod(shape) > MAX_VOXELS:
                raise ValueError(f'its head says that it has {shape} voxels, which no volume of NSD has')
            size = offset + prod(shape) * dtype.itemsize
            content = head + stream.read(size - HEAD_BYTES + 1)  # at the end gzip compares its checksum
        if len(content) != size:
            raise EOFError(f'it ends {"before" if len(content) < size else "after"} the last value')
        image = nib.Nifti1Image.from_bytes(content)
        return np.asarray(image.dataobj), image.affine
    except Unsuitable:
        raise
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise ValueError(f'{path} ({what}) cannot be read as NIfTI: {error}. Download it again.') from error


def _checked_head(head: bytes) -> Tuple[nib.Nifti1Header, int]:
    """The head of a file, and where its values begin."""
    header = nib.Nifti1Header(head)
    offset = float(header['vox_offset'])
    if header['magic'] != b'n+1' or not HEAD_BYTES + 4 <= offset <= MAX_OFFSET:
        raise ValueError(f'its head says that its values begin at byte {offset}')
    return header, int(offset)


def stream_volumes(path: Path, shape: Tuple[int, ...]) -> Iterator[np.ndarray]:
    """The volumes of a four-dimensional int16 ``.nii.gz`` file one after the other, in memory of one volume.

    Args:
        path: The file.
        shape: (X, Y, Z, T) that it must have.

    Yields:
        (X, Y, Z) int16 volumes, which share their memory.

    Raises:
        ValueError: If the file is damaged, has another shape or type, or asks for scaling.
    """
    try:
        with gzip.open(path, 'rb') as stream:
            header, offset = _checked_head(stream.read(HEAD_BYTES))
            scaling = header.get_slope_inter()
            found = header.get_data_shape(), header.get_data_dtype().newbyteorder('=')
            if found != (tuple(shape), np.dtype(np.int16)) or scaling not in ((None, None), (1.0, 0.0)):
                raise Unsuitable(
                    f'{path} holds {found[1]} {found[0]} with scaling {scaling}, expected int16 {tuple(shape)} without '
                    'scaling, as the ROI files have it. Is it the file of another subject or space?'
                )
            stream.read(offset - HEAD_BYTES)
            volume = np.empty(shape[:3], header.get_data_dtype(), order='F')
            buffer = memoryview(volume.reshape(-1, order='F')).cast('B')
            for _ in range(shape[3]):
                if stream.readinto(buffer) != len(buffer):
                    raise EOFError('the file ends too early')
                yield volume
            if stream.read(1):  # at the end gzip compares its checksum
                raise ValueError('the file goes on after the last volume')
    except Unsuitable:
        raise
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise ValueError(f'{path} cannot be read as NIfTI: {error}. Download it again.') from error
