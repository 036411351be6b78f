"""What an image has without any learning: colours and the energies of Gabor filters."""

from __future__ import annotations

from typing import Tuple

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F

from mmnfn.registry import MODELS

SIZES = (64, 32, 16)
"""Pixels along a side of the grey images that are filtered."""
ORIENTATIONS = 4
WAVELENGTH = 4
"""In pixels of those images, so that 16, 8 and 4 waves are as long as the image."""


@MODELS.register_module()
class LowLevelFeatures(BaseModule):
    """Compute mean colours and Gabor energies, the baseline that an encoding model has to beat; nothing is learned.

    Used like a backbone: ``BackboneFeatures(backbone=dict(type='mmnfn.LowLevelFeatures'))``. All scales are relative to
    the image, whatever its size: it is averaged to 8 × 8 colours, and to grey images of 64, 32 and 16 pixels a side.
    These are filtered with Gabor functions of 4 pixels' wavelength, 1/16, 1/8 and 1/4 of the image's side. An energy is
    √(c² + s²), where c and s are the outputs of the filters in cosine and in sine phase (Adelson and Bergen, 1985).

    Args:
        pixels: Give the colours.
        gabors: Give the energies.

    Raises:
        ValueError: If both are left out.
    """

    def __init__(self, pixels: bool = True, gabors: bool = True):
        super().__init__()
        if not (pixels or gabors):
            raise ValueError('pixels and gabors are both False, which leaves no features.')
        self.pixels, self.gabors = pixels, gabors
        self.register_buffer('filters', gabor_filters(), persistent=False)

    def forward(self, inputs: Tensor) -> Tuple[Tensor, ...]:
        """Turn normalised images (B, 3, H, W) into maps.

        Returns:
            With ``pixels`` (B, 12, 4, 4), the colours of the quarters of 4 × 4 cells; with ``gabors`` energies
            (B, 4, 64, 64), (B, 4, 32, 32) and (B, 4, 16, 16), the channels at 0°, 45°, 90° and 135°.
        """
        maps = [F.pixel_unshuffle(F.adaptive_avg_pool2d(inputs, 8), 2)] if self.pixels else []
        if self.gabors:
            grey = inputs.mean(1, keepdim=True)
            maps += [self._energy(F.adaptive_avg_pool2d(grey, size)) for size in SIZES]
        return tuple(maps)

    def _energy(self, grey: Tensor) -> Tensor:
        """Compute energies (B, orientations, h, w) of grey images (B, 1, h, w), mirrored at the border."""
        margin = self.filters.shape[-1] // 2
        outputs = F.conv2d(F.pad(grey, [margin] * 4, mode='reflect'), self.filters)
        return outputs.unflatten(1, (ORIENTATIONS, 2)).square().sum(2).sqrt()


def gabor_filters() -> Tensor:
    """Make Gabor functions (2 · orientations, 1, 11, 11): cosine and sine phase of each orientation.

    The Gaussian has a std of half a wavelength, which makes the bandwidth about an octave. Each function has zero mean
    and unit norm.
    """
    y, x = np.mgrid[-5:6, -5:6]
    angles = np.pi * np.arange(ORIENTATIONS)[:, None, None] / ORIENTATIONS
    waves = np.exp(2j * np.pi * (x * np.cos(angles) + y * np.sin(angles)) / WAVELENGTH)
    envelope = np.exp(-(x**2 + y**2) / (2 * (WAVELENGTH / 2) ** 2))
    filters = np.stack([waves.real, waves.imag], axis=1)
    filters = envelope * (filters - (envelope * filters).sum((-2, -1), keepdims=True) / envelope.sum())
    filters /= np.sqrt((filters**2).sum((-2, -1), keepdims=True))
    return torch.from_numpy(filters.reshape(-1, 1, *envelope.shape)).float()
