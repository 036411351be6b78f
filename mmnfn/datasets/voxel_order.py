"""The order of voxels along the axis over which the fMRI tower convolves."""

from __future__ import annotations

import numpy as np

ORDERS = ('stored', 'hilbert')
BITS = 8


def order_voxels(coordinates: np.ndarray, order: str) -> np.ndarray:
    """Order of the voxels of a ROI.

    Args:
        coordinates: (V, 3) mm.
        order: ``'stored'``, as the ROI store has them (raster order for NSD: x fastest); or ``'hilbert'``, along a
            Hilbert curve, so that voxels which follow each other are neighbours in space.

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
    """Place of cells on the Hilbert curve through a cube of 2^bits cells a side.

    The transform of J. Skilling, "Programming the Hilbert curve", AIP Conference Proceedings 707 (2004).

    Args:
        cells: (V, n) integers from 0 to 2^bits − 1.
        bits: n·bits must not exceed 63.

    Returns:
        (V,) int64 from 0 to 2^(n·bits) − 1; consecutive places are neighbouring cells.
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
