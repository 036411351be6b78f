"""Images with maps laid over them, in rows and columns."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence, Union

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmnfn.utils import atomic_write


def draw_overlay(axes: Axes, image: np.ndarray, heat: Optional[np.ndarray] = None) -> None:
    """Draw an image, and over it how much its places count.

    Args:
        axes: Where to.
        image: (H, W, 3) uint8 RGB.
        heat: (h, w) from 0, of any size and scale; None for the image alone.
    """
    axes.imshow(image)
    if heat is not None:
        axes.imshow(
            heat / max(float(heat.max()), 1e-12),
            cmap='inferno',
            alpha=0.55,
            vmin=0,
            vmax=1,
            interpolation='bicubic',
            extent=(-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5),
        )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_grid(
    path: Union[str, Path],
    images: Sequence[np.ndarray],
    columns: Sequence[str],
    maps: Sequence[Sequence[np.ndarray]],
) -> None:
    """Write a picture with a row for each image: the image, then its maps.

    Args:
        path: File to write, of any format that Matplotlib knows.
        images: n images, (H, W, 3) uint8 RGB.
        columns: m headings of the maps.
        maps: m sequences of n maps (h, w).
    """
    rows, width = len(images), len(columns) + 1
    figure = Figure(figsize=(1.75 * width, 1.75 * rows + 0.3), layout='constrained')
    for row, image in enumerate(images):
        for column in range(width):
            axes = figure.add_subplot(rows, width, row * width + column + 1)
            draw_overlay(axes, image, maps[column - 1][row] if column else None)
            if row == 0:
                axes.set_title(columns[column - 1] if column else 'image', fontsize=10)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format=Path(path).suffix[1:] or 'png')
