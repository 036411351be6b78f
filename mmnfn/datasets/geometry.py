"""Positions of a subject's voxels, their order on the voxel axis, and the controls that permute them."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import numpy as np
import torch

from mmnfn.nsd import ROIStore
from mmnfn.nsd.release import IMAGE_DEGREES
from mmnfn.structures import SubjectGeometry

ORDERS = ('stored', 'hilbert')
BITS = 8


def subject_geometry(
    store: ROIStore,
    roi_names: Sequence[str],
    voxel_order: str = 'stored',
    permute_rois: Optional[int] = None,
    permute_positions: Optional[int] = None,
) -> Tuple[SubjectGeometry, np.ndarray]:
    """Read the geometry of the chosen ROIs, and the voxel indices (N,) in the order of its voxel axis.

    Args:
        store: The subject's ROI store.
        roi_names: ROIs, see :meth:`mmnfn.nsd.ROIStore.roi`.
        voxel_order: Order of the voxels within each ROI, see :func:`order_voxels`.
        permute_rois: Seed of a control in which each voxel takes the ROIs of another voxel chosen at random. The
            positions of the voxels and the sizes and overlaps of the ROIs stay.
        permute_positions: Seed of a control in which each voxel gets the position of another voxel of its ROI.

    Raises:
        ValueError: If a ROI or the order is unknown, or there is no voxel.
    """
    parts = [store.roi(name) for name in roi_names]
    if permute_rois is not None:
        own = np.unique(np.concatenate(parts))  # Shuffling the list itself could put a voxel twice into one ROI.
        dealt = np.zeros(len(store.coordinates), own.dtype)
        dealt[own] = _rng(store, permute_rois, 'rois').permutation(own)
        parts = [np.sort(dealt[part]) for part in parts]
    positions = list(parts)
    if permute_positions is not None:
        rng = _rng(store, permute_positions, 'positions')
        positions = [rng.permutation(part) for part in parts]
    orders = [order_voxels(store.coordinates[part], voxel_order) for part in positions]
    parts, positions = ([p[order] for p, order in zip(x, orders)] for x in (parts, positions))
    index = np.concatenate(parts)
    if not index.size:
        raise ValueError(f'{store.path} has no voxel in {", ".join(roi_names)}. Choose other ROIs.')
    coordinates = torch.from_numpy(store.coordinates[np.concatenate(positions)])
    sizes, voxels = tuple(len(p) for p in parts), torch.from_numpy(index.astype(np.int64))
    prf = None if store.prf is None else torch.from_numpy(image_fields(store.prf[np.concatenate(positions)]))
    return SubjectGeometry(store.subject, tuple(roi_names), sizes, coordinates, voxels, prf), index


def image_fields(prf: np.ndarray) -> np.ndarray:
    """Convert receptive fields from visual angle to the image.

    Args:
        prf: (V, 3) angle in degrees anticlockwise from the right, eccentricity and size in degrees of visual angle.

    Returns:
        (V, 3) float32: x to the right and y downwards from −1 to 1, std in sides of the image; where nothing was
        measured the centre and half a side.
    """
    angle, eccentricity, size = np.radians(prf[:, 0]), prf[:, 1] / (IMAGE_DEGREES / 2), prf[:, 2] / IMAGE_DEGREES
    fields = np.stack([eccentricity * np.cos(angle), -eccentricity * np.sin(angle), size], 1)
    return np.where(np.isfinite(fields).all(1, keepdims=True), fields, (0, 0, 0.5)).astype(np.float32)


def _rng(store: ROIStore, seed: int, control: str) -> np.random.Generator:
    """Seed the random numbers of a control; they differ between subjects."""
    return np.random.default_rng([seed, *f'{store.subject} {control}'.encode()])


def order_voxels(coordinates: np.ndarray, order: str) -> np.ndarray:
    """Order the voxels of a ROI along the axis over which the fMRI tower convolves.

    Args:
        coordinates: (V, 3) in mm.
        order: ``'stored'``, the order of the ROI store (for NSD raster order, x fastest); or ``'hilbert'``, along a
            Hilbert curve, so that consecutive voxels are neighbours in space.

    Returns:
        (V,) indices.

    Raises:
        ValueError: If the order is unknown.
    """
    if order not in ORDERS:
        raise ValueError(f'voxel_order is {order!r}; it must be one of {", ".join(ORDERS)}.')
    if order == 'stored' or len(coordinates) == 0:
        return np.arange(len(coordinates))
    low = coordinates.min(0)
    span = max(float((coordinates - low).max()), 1e-6)
    cells = np.minimum((coordinates - low) / span * 2**BITS, 2**BITS - 1).astype(np.int64)
    return np.argsort(hilbert_index(cells, BITS), kind='stable')


def hilbert_index(cells: np.ndarray, bits: int) -> np.ndarray:
    """Number the cells of a cube of 2^bits cells a side along the Hilbert curve.

    The transform of J. Skilling, "Programming the Hilbert curve", AIP Conference Proceedings 707 (2004).

    Args:
        cells: (V, n) integers from 0 to 2^bits − 1.
        bits: n·bits must not exceed 63.

    Returns:
        (V,) int64 from 0 to 2^(n·bits) − 1; consecutive numbers are neighbouring cells.
    """
    x = cells.T.copy()
    axes = len(x)
    for bit in range(bits - 1, 0, -1):
        lower = (1 << bit) - 1
        for axis in range(axes):
            inverted = (x[axis] >> bit) & 1 == 1
            exchange = np.where(inverted, 0, (x[0] ^ x[axis]) & lower)
            x[0] ^= np.where(inverted, lower, exchange)
            x[axis] ^= exchange
    for axis in range(1, axes):  # Gray code
        x[axis] ^= x[axis - 1]
    flip = np.zeros_like(x[0])
    for bit in range(bits - 1, 0, -1):
        flip ^= np.where((x[-1] >> bit) & 1 == 1, (1 << bit) - 1, 0)
    x ^= flip
    index = np.zeros_like(x[0])
    for bit in range(bits - 1, -1, -1):
        for axis in range(axes):
            index = index << 1 | (x[axis] >> bit) & 1
    return index
