"""Known tuning of voxels that varies smoothly over the cortex."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Tuple

import cv2
import numpy as np

from mmnfn.nsd.release import ROI_LABELS

from .cortex import Anatomy, SmoothField
from .scenes import CLASSES, STUFF_CLASSES

GRID = 16
ORIENTATIONS = (0.0, 45.0, 90.0, 135.0)
WAVELENGTHS = (4.0, 9.0)
"""In pixels of the 64-pixel image from which orientation energy is computed."""
ENERGY_CHANNELS: List[Tuple[float, float]] = [(o, w) for w in WAVELENGTHS for o in ORIENTATIONS]
NUM_CHANNELS = len(ENERGY_CHANNELS) + len(CLASSES)

# Preferences of each category-selective class; other things drive it weakly.
PREFERENCES: Dict[str, Dict[str, float]] = {
    'floc-faces': {'face': 1.0, 'body': 0.25, 'animal': 0.2},
    'floc-bodies': {'body': 1.0, 'animal': 0.45, 'face': 0.2},
    'floc-words': {'word': 1.0, 'house': 0.15, 'face': 0.1},
    'floc-places': {'house': 0.6, **{name: 0.8 for name in STUFF_CLASSES}},
}
# Median ratio of signal to noise of a single trial, and the share of orientation energy, by region.
NCSNR = {
    'prf-visualrois': 0.6,
    'floc-faces': 0.55,
    'floc-bodies': 0.6,
    'floc-places': 0.55,
    'floc-words': 0.45,
    'streams': 0.4,
}
ENERGY_SHARE = {
    'early': 0.9,
    'midventral': 0.55,
    'midlateral': 0.5,
    'midparietal': 0.55,
    'ventral': 0.15,
    'lateral': 0.15,
    'parietal': 0.35,
}


def image_features(image: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    """Compute the features of an image that drive simulated voxels.

    Args:
        image: (S, S, 3) uint8 RGB.
        semantic: (S, S) uint8 indices into :data:`mmnfn.simulation.scenes.CLASSES`; 255 is no class.

    Returns:
        (NUM_CHANNELS, 16, 16) float32: orientation energy, then the area covered by each class.
    """
    grey = (
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
        / 255
    )
    channels = []
    for orientation, wavelength in ENERGY_CHANNELS:
        energy = 0.0
        for phase in (0.0, np.pi / 2):
            kernel = cv2.getGaborKernel((15, 15), 0.45 * wavelength, np.radians(orientation), wavelength, 1.0, phase)
            energy = energy + cv2.filter2D(grey, cv2.CV_32F, kernel - kernel.mean()) ** 2
        channels.append(cv2.resize(np.sqrt(energy), (GRID, GRID), interpolation=cv2.INTER_AREA))
    covers = np.zeros((len(CLASSES), GRID, GRID), np.float32)
    for index in np.unique(semantic[semantic < len(CLASSES)]):
        covers[index] = cv2.resize((semantic == index).astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return np.concatenate([np.asarray(channels, np.float32), covers])


class Tuning(NamedTuple):
    """Hold the tuning of V voxels.

    Attributes:
        field: (V, 3) centre x (right), y (up) and size of the spatial field; 1 is half the image's side.
        weights: (V, NUM_CHANNELS) weight of each feature channel.
        exponent: (V,) exponent of the compressive nonlinearity.
        ncsnr: (V,) std of the signal over that of the noise in one trial.
    """

    field: np.ndarray
    weights: np.ndarray
    exponent: np.ndarray
    ncsnr: np.ndarray

    def responses(self, features: np.ndarray) -> np.ndarray:
        """Compute noise-free responses, z-scored over the images.

        Args:
            features: (images, NUM_CHANNELS, 16, 16), each channel scaled to unit variance.

        Returns:
            (images, V) float32.
        """
        grid = (np.arange(GRID) + 0.5) / GRID * 2 - 1
        x, y, size = (self.field[:, i, None, None] for i in range(3))
        spatial = np.exp(-((grid[None, None, :] - x) ** 2 + (-grid[None, :, None] - y) ** 2) / (2 * size**2))
        spatial = (spatial / spatial.sum((1, 2), keepdims=True)).reshape(len(x), -1).astype(np.float32)
        weights = self.weights.astype(np.float32)
        out = np.empty((len(features), len(x)), np.float32)
        for i, image in enumerate(features.reshape(len(features), NUM_CHANNELS, -1)):
            out[i] = np.einsum('cv,vc->v', image @ spatial.T, weights)
        out = np.sign(out) * np.abs(out) ** self.exponent.astype(np.float32)
        return (out - out.mean(0)) / np.maximum(out.std(0), 1e-6)


def _visual_field(anatomy: Anatomy, where: Tuple[np.ndarray, ...], xy: np.ndarray) -> np.ndarray:
    """Place receptive fields (V, 3): retinotopic in early cortex, broad and contralateral elsewhere."""
    x, y = xy.T
    contralateral = np.where(anatomy.hemisphere[where] == 0, 1.0, -1.0)  # the left hemisphere sees the right
    eccentricity = 0.05 + 0.9 * np.clip((8 - x) / 50, 0, 1) ** 1.3
    height = np.abs(y)
    # Polar angle, 0 horizontal … 90 vertical meridian, with its reversals at the borders of V1, V2 and V3.
    angle = np.interp(height, [0, 7, 13, 19, 23, 28], [0, 90, 0, 90, 0, -80])
    angle = np.radians(np.where(y < 0, angle, -angle))  # ventral cortex sees the upper field
    size = 0.1 + 0.12 * eccentricity + 0.012 * np.maximum(height - 7, 0)
    early = np.stack([contralateral * eccentricity * np.cos(angle), eccentricity * np.sin(angle), size], -1)
    broad = np.stack(
        [contralateral * (0.25 + 0.2 * np.sin(x / 9)), 0.3 * np.cos(x / 7 + y / 11), 0.45 + 0.15 * np.sin(y / 13)], -1
    )
    label = anatomy.rois['prf-visualrois'][where]
    is_early = (label > 0) | (anatomy.rois['streams'][where] == 1)
    return np.where(is_early[:, None], early, broad)


def make_tuning(anatomy: Anatomy, seed: int, rng: np.random.Generator) -> Tuning:
    """Tune the voxels of :attr:`Anatomy.visual`, in the order of ``np.nonzero``.

    Args:
        anatomy: The brain.
        seed: Seed of the world, for the maps that all brains share with variations.
        rng: The subject's own source of randomness.
    """
    where = np.nonzero(anatomy.visual)
    xy = anatomy.flat[where].astype(float)
    common = np.random.default_rng([seed, 9])

    def variable_map(scale: float) -> np.ndarray:
        return np.sqrt(0.75) * SmoothField(common, 2, scale)(xy) + 0.5 * SmoothField(rng, 2, scale)(xy)

    preferred = np.degrees(np.arctan2(variable_map(5.0), variable_map(5.0))) / 2 % 180
    fine = 1 / (1 + np.exp(-2 * (variable_map(12.0) + 0.5)))
    energy = np.stack(
        [
            np.exp(1.2 * (np.cos(2 * np.radians(preferred - o)) - 1)) * (fine if w == WAVELENGTHS[0] else 1 - fine)
            for o, w in ENERGY_CHANNELS
        ],
        -1,
    )
    category = np.stack([variable_map(14.0) for _ in CLASSES], -1)
    streams = anatomy.rois['streams'][where]
    share = np.asarray([0.1] + [ENERGY_SHARE[name] for name in ROI_LABELS['streams']])[np.maximum(streams, 0)]
    weights = np.concatenate([2 * share[:, None] * energy, (1 - share)[:, None] * category], -1)
    exponent = np.where(share > 0.8, 0.6, 0.8)
    ncsnr = np.full(len(xy), NCSNR['streams'])

    for roi_class, likes in PREFERENCES.items():
        inside = anatomy.rois[roi_class][where] > 0
        selective = 0.12 * category[inside]
        for name, amount in likes.items():
            selective[:, CLASSES.index(name)] += amount * (1 + 0.25 * category[inside, CLASSES.index(name)])
        weights[inside, : len(ENERGY_CHANNELS)] *= 0.15
        weights[inside, len(ENERGY_CHANNELS) :] = selective
        exponent[inside], ncsnr[inside] = 0.75, NCSNR[roi_class]
    inside = anatomy.rois['prf-visualrois'][where] > 0
    weights[inside] = np.concatenate([energy[inside], 0.05 * category[inside]], -1)
    exponent[inside], ncsnr[inside] = 0.6, NCSNR['prf-visualrois']
    ncsnr = ncsnr * np.exp(0.25 * variable_map(10.0) + rng.normal(0, 0.3, len(xy)))
    return Tuning(_visual_field(anatomy, where, xy), weights, exponent, ncsnr)


def scale_features(features: np.ndarray) -> np.ndarray:
    """Divide each channel of (images, NUM_CHANNELS, 16, 16) by its std; unused channels stay zero."""
    std = features.std((0, 2, 3), keepdims=True)
    return features / np.where(std > 1e-6, std, 1.0)
