"""Data passed between datasets and models."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple

from torch import Tensor


class SubjectGeometry(NamedTuple):
    """Hold where one subject's voxels lie; one object per subject, shared by every sample of a batch.

    The voxel axis of ``responses`` (B, N) and of ``coordinates`` is the concatenation of the ROIs in the order of
    ``roi_names``; a voxel that belongs to two ROIs stands in it twice, and N = sum(roi_sizes).

    Attributes:
        subject: NSD subject name, ``'subj01'`` … ``'subj08'``.
        roi_names: The K ROI classes, the same tuple for every subject of a dataset.
        roi_sizes: Number of voxels of each ROI; 0 where the subject does not have the ROI.
        coordinates: (N, 3) float32, voxel centres in millimetres; a control may move them.
        voxels: (N,) int64, index of each voxel in the subject's ROI store, by which it is known; None where no store
            is behind it.
        prf: (N, 3) float32, measured receptive field of each voxel: x to the right and y downwards from −1 to 1, and
            standard deviation in sides of the image; None where none were measured.
    """

    subject: str
    roi_names: Tuple[str, ...]
    roi_sizes: Tuple[int, ...]
    coordinates: Tensor
    voxels: Optional[Tensor] = None
    prf: Optional[Tensor] = None
