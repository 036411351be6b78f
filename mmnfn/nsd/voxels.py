"""Which voxels of a subject go into a store."""

from __future__ import annotations

from typing import Dict, NamedTuple, Sequence, Tuple

import numpy as np

from .release import NSDLayout


class Voxels(NamedTuple):
    """The voxels of a store, in the raster order of the beta files (z slowest, x fastest).

    Attributes:
        index: (V, 3) x, y, z.
        rois: ROI class → indices into the V voxels.
        shape: Volume (X, Y, Z).
        affine: (4, 4) voxel index → mm.
    """

    index: np.ndarray
    rois: Dict[str, np.ndarray]
    shape: Tuple[int, int, int]
    affine: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """(V, 3) mm."""
        return self.index @ self.affine[:3, :3].T + self.affine[:3, 3]


def select_voxels(layout: NSDLayout, subject: str, roi_classes: Sequence[str]) -> Voxels:
    """Union of the ROI classes; a class that the subject lacks is legal and empty.

    Raises:
        FileNotFoundError, ValueError: If a file is missing or holds no labels, the volumes lie in different spaces, or
            there is no voxel at all.
    """
    volumes, first = {}, None
    for name in roi_classes:
        labels, affine = layout.roi(subject, name)
        first = first or (name, labels.shape, affine)
        if labels.shape != first[1] or not np.allclose(affine, first[2], atol=1e-3):
            raise ValueError(
                f'{layout.roi_file(subject, name)} has shape {labels.shape} and affine {affine[:3].tolist()}, but '
                f'{layout.roi_file(subject, first[0])} has {first[1]} and {first[2][:3].tolist()}: they belong to '
                'different subjects or spaces. Download the func1pt8mm files again.'
            )
        volumes[name] = labels > 0
    union = np.any(list(volumes.values()), axis=0)
    if not union.any():
        raise ValueError(f'{subject} has no voxel in {", ".join(roi_classes)}. Choose other ROI classes.')
    z, y, x = np.nonzero(union.transpose(2, 1, 0))
    rank = np.full(union.shape, -1)
    rank[x, y, z] = np.arange(len(x))
    rois = {name: np.sort(rank[volume]) for name, volume in volumes.items()}
    return Voxels(np.stack([x, y, z], -1), rois, union.shape, first[2])
