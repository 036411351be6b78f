"""Where the voxels of a subject lie, and the controls that say it wrongly."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import numpy as np
import torch

from mmnfn.nsd import ROIStore
from mmnfn.structures import SubjectGeometry

from .voxel_order import order_voxels


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
        roi_names: ROI classes.
        voxel_order: Order of the voxels within each, see :func:`.voxel_order.order_voxels`.
        permute_rois: Seed of a control: each voxel takes the ROIs of another one, chosen at random; sizes and
            overlaps of the ROIs stay, and each voxel's place.
        permute_positions: Seed of a control: within each ROI, each voxel is said to be where another one is.

    Raises:
        ValueError: If a ROI or the order is unknown, or there is no voxel.
    """
    parts = [store.roi(name) for name in roi_names]
    if permute_rois is not None:
        # Not the list itself: a voxel in two ROIs could come twice into one.
        own = np.unique(np.concatenate(parts))
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
    return SubjectGeometry(store.subject, tuple(roi_names), sizes, coordinates, voxels), index


def _rng(store: ROIStore, seed: int, control: str) -> np.random.Generator:
    """Make the source of randomness of a control; every subject has its own."""
    return np.random.default_rng([seed, *f'{store.subject} {control}'.encode()])
