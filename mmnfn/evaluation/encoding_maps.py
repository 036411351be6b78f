"""Figures of voxels as volumes in the subject's own space."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Union

import nibabel as nib
import numpy as np

from mmnfn.nsd.store import ROIStore
from mmnfn.utils import atomic_write


def write_voxel_map(store: ROIStore, index: np.ndarray, values: np.ndarray, path: Union[str, Path]) -> Path:
    """Write one value per voxel as a NIfTI volume of the subject's functional space.

    Args:
        store: Of the subject.
        index: (N,) of voxels in the store, as a dataset's geometry has them; a voxel may be there twice.
        values: (N,).
        path: ``.nii.gz`` to write: float32, NaN outside the N voxels, with the affine of the ROI files.

    Returns:
        The path.

    Raises:
        ValueError: If the store is no volume, or does not say how large it is.
    """
    if 'volume_shape' not in store.attributes:
        raise ValueError(
            f'{store.path} ({store.space}) does not say which volume its voxels lie in. Maps are written for stores '
            'that tools/prepare_nsd.py made.'
        )
    affine, shape = store.location['affine'], tuple(int(n) for n in store.attributes['volume_shape'])
    volume = np.full(shape, np.nan, np.float32)
    volume[tuple(store.location['voxel'][index].T)] = values
    path = Path(path)
    with atomic_write(path) as temporary:
        Path(temporary).write_bytes(gzip.compress(nib.Nifti1Image(volume, affine).to_bytes(), mtime=0))
    return path
