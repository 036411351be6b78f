"""Brains of plausible geometry: a folded cortical sheet, its flat map and its regions."""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple

import numpy as np

from mmnfn.nsd.release import ROI_LABELS, SUBJECT_SHAPES

FUNC_VOXEL_MM = 1.8

# Centre (medial-lateral, ventral-dorsal) and radius of the category-selective patches on the flat map, in degrees.
FLOC_PATCHES: Dict[str, Dict[str, Tuple[float, float, float]]] = {
    'floc-faces': {
        'OFA': (38, -18, 7),
        'FFA-1': (18, -48, 6.5),
        'FFA-2': (16, -60, 6),
        'mTL-faces': (12, -74, 5),
        'aTL-faces': (8, -88, 5),
    },
    'floc-bodies': {'EBA': (48, 2, 10), 'FBA-1': (27, -46, 5.5), 'FBA-2': (25, -58, 5), 'mTL-bodies': (22, -72, 4.5)},
    'floc-places': {'OPA': (28, 34, 8), 'PPA': (-6, -58, 9), 'RSC': (-52, 2, 7)},
    'floc-words': {
        'OWFA': (34, -29, 6),
        'VWFA-1': (33, -50, 5.5),
        'VWFA-2': (31, -61, 5),
        'mfs-words': (20, -54, 4),
        'mTL-words': (27, -78, 4),
    },
}
# Labels that some people do not have.
OPTIONAL_LABELS = ('mTL-faces', 'aTL-faces', 'mTL-bodies', 'mTL-words', 'mfs-words', 'FFA-2', 'OWFA')


class SmoothField:
    """Evaluate a smooth random function of position with unit variance (random cosine features).

    Args:
        rng: Source of randomness.
        dims: Number of coordinates.
        scale: Distance over which the function varies, in the unit of the coordinates.
    """

    def __init__(self, rng: np.random.Generator, dims: int, scale: float):
        self.frequencies = rng.normal(0, 1 / scale, (dims, 48))
        self.phases = rng.uniform(0, 2 * np.pi, 48)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return np.sqrt(2 / 48) * np.cos(points @ self.frequencies + self.phases).sum(-1)


class Anatomy(NamedTuple):
    """Hold a simulated brain in volume space; all volumes are indexed [x, y, z] in RAS order.

    Attributes:
        affine: (4, 4) voxel index → mm.
        brain: (X, Y, Z) bool, the liberal brain mask.
        hemisphere: (X, Y, Z) int8, −1 outside cortex, 0 left, 1 right.
        rois: ROI class → (X, Y, Z) int, −1 outside cortex, 0 cortex without label, k label.
        flat: (X, Y, Z, 2) float32 flat-map coordinates in degrees, (medial−lateral, ventral−dorsal) around the
            occipital pole; NaN outside cortex.
    """

    affine: np.ndarray
    brain: np.ndarray
    hemisphere: np.ndarray
    rois: Dict[str, np.ndarray]
    flat: np.ndarray

    @property
    def visual(self) -> np.ndarray:
        """Unite all ROI classes, (X, Y, Z) bool."""
        return np.any([roi > 0 for roi in self.rois.values()], axis=0)


def _retinotopic_labels(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    names = ('Unknown',) + ROI_LABELS['prf-visualrois']
    label = np.zeros(x.shape, int)
    inside = (x > -42) & (x < 8)
    for name, low, high in (
        ('V1v', -7, 0),
        ('V1d', 0, 7),
        ('V2v', -13, -7),
        ('V2d', 7, 13),
        ('V3v', -19, -13),
        ('V3d', 13, 19),
        ('hV4', -28, -19),
    ):
        label[inside & (y >= low) & (y < high)] = names.index(name)
    return label


def _stream_labels(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    names = ('Unknown',) + ROI_LABELS['streams']
    label = np.zeros(x.shape, int)
    beyond = np.maximum.reduce([np.abs(y) - 21, x - 10, -42 - x])  # degrees outside early visual cortex
    label[beyond < 0] = names.index('early')
    direction = np.degrees(np.arctan2(y, x + 5))
    for name, low, high in (('ventral', -140, -35), ('lateral', -35, 45), ('parietal', 45, 140)):
        sector = (direction >= low) & (direction < high)
        label[sector & (beyond >= 0) & (beyond < 9)] = names.index('mid' + name)
        label[sector & (beyond >= 9) & (beyond < 50)] = names.index(name)
    return label


def make_anatomy(subject: int, voxel_mm: float, rng: np.random.Generator) -> Anatomy:
    """Grow the brain of one subject.

    Args:
        subject: 1…8; the field of view is that of the real subject.
        voxel_mm: Edge of a voxel; 1.8 gives NSD's own resolution and volume shape.
        rng: Source of the differences between brains: folding, size and position of regions, missing labels.
    """
    shape = tuple(int(round(n * FUNC_VOXEL_MM / voxel_mm)) for n in SUBJECT_SHAPES[f'subj{subject:02d}'])
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = -voxel_mm * (np.asarray(shape) - 1) / 2
    points = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing='ij'), -1) * voxel_mm + affine[:3, 3]

    axes = np.asarray([30.0, 78.0, 52.0]) * rng.uniform(0.95, 1.05, 3)
    thickness = max(7.0, 1.3 * voxel_mm) / axes[2]
    missing = {name for name in OPTIONAL_LABELS if rng.random() < 0.2}
    scales = {name: rng.uniform(0.85, 1.2) for patches in FLOC_PATCHES.values() for name in patches}
    shifts = {name: rng.normal(0, 2.5, 2) for name in scales}
    hemisphere = np.full(shape, -1, np.int8)
    flat = np.full(shape + (2,), np.nan, np.float32)
    brain = np.zeros(shape, bool)
    rois = {name: np.full(shape, -1, int) for name in ROI_LABELS}
    for side in (0, 1):
        sign = 1 if side else -1
        relative = (points - np.asarray([sign * 29.0, -2.0, 3.0])) / axes
        radius = np.linalg.norm(relative, axis=-1)
        direction = relative / np.maximum(radius, 1e-9)[..., None]
        folded = radius * (1 + 0.045 * SmoothField(rng, 3, 0.22)(direction))
        own_side = sign * points[..., 0] > 0
        brain |= (folded < 1.1) & (sign * points[..., 0] > -voxel_mm)
        cortex = own_side & (folded <= 1) & (folded > 1 - thickness)
        hemisphere[cortex] = side

        n = direction[cortex]
        angle = np.degrees(np.arccos(np.clip(-n[:, 1], -1, 1)))  # from the occipital pole
        around = np.arctan2(n[:, 2], sign * n[:, 0])
        xy = np.stack([angle * np.cos(around), angle * np.sin(around)], -1)
        turn = np.radians(rng.uniform(-5, 5))
        rotation = np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        warp = np.stack([SmoothField(rng, 2, 25.0)(xy), SmoothField(rng, 2, 25.0)(xy)], -1)
        xy = rng.uniform(0.93, 1.07) * xy @ rotation + 1.5 * warp + rng.uniform(-2, 2, 2)
        flat[cortex] = xy

        labels = {'prf-visualrois': _retinotopic_labels(*xy.T), 'streams': _stream_labels(*xy.T)}
        for roi_class, patches in FLOC_PATCHES.items():
            label = np.zeros(len(xy), int)
            for k, name in enumerate(ROI_LABELS[roi_class], 1):
                x, y, size = patches[name]
                size = size * scales[name] * (1.25 if 'VWFA' in name and side == 0 else 1.0)
                inside = np.hypot(*(xy - (np.asarray([x, y]) + shifts[name])).T) < size
                if name not in missing:
                    label[inside & (label == 0)] = k
            labels[roi_class] = label
        for name, label in labels.items():
            rois[name][cortex] = label
    return Anatomy(affine, brain, hemisphere, rois, flat)
