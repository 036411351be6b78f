"""NIfTI volumes, read whole and with their checksums."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Iterator, Tuple

import nibabel as nib
import numpy as np

from .files import Unsuitable, existing


def read_volume(path: Path, what: str) -> Tuple[np.ndarray, np.ndarray]:
    """Values and affine of a ``.nii.gz`` file.

    The file is unpacked to its end, so that gzip's checksum is compared; nibabel alone stops before it.

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
        image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
        values = np.asarray(image.dataobj)
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise ValueError(f'{path} ({what}) cannot be read as NIfTI: {error}. Download it again.') from error
    if values.ndim != 3 or values.dtype.kind not in 'iuf':
        raise ValueError(
            f'{path} ({what}) holds {values.dtype} values of shape {values.shape}; numbers (X, Y, Z) are expected.'
        )
    return values, image.affine


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
            header = nib.Nifti1Header.from_fileobj(stream)
            scaling = header.get_slope_inter()
            found = header.get_data_shape(), header.get_data_dtype().newbyteorder('=')
            if found != (tuple(shape), np.dtype(np.int16)) or scaling not in ((None, None), (1.0, 0.0)):
                raise Unsuitable(
                    f'{path} holds {found[1]} {found[0]} with scaling {scaling}, expected int16 {tuple(shape)} without '
                    'scaling, as the ROI files have it. Is it the file of another subject or space?'
                )
            stream.seek(int(header.get_data_offset()))
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
