"""Maps over images, the grids they are drawn in, and the arguments of the tools that draw them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from mmnfn.apis import get_model
from mmnfn.apis.retriever import centre_square, config_image_size, read_image
from mmnfn.datasets import subject_geometry
from mmnfn.nsd import ROI_CLASSES, ROIStore, StimulusImages
from mmnfn.utils import atomic_write, listed


@torch.no_grad()
def roi_maps(
    model: nn.Module, images: Sequence[np.ndarray], store: Optional[ROIStore] = None
) -> Tuple[np.ndarray, Tuple[str, ...]]:
    """Compute where in images each ROI looks.

    Args:
        model: A :class:`mmnfn.models.NeuroFusionNet` in evaluation mode.
        images: n images (S, S, 3) uint8 RGB of the size that the model was trained with.
        store: The ROI store of a subject: where the responses of its ROIs come from, by the encoding head
            (:meth:`mmnfn.models.EncodingHead.roi_maps`). None: the spatial weights that pool the ROI features of the
            image tower (:class:`mmnfn.models.ROIImageHead`).

    Returns:
        (n, K, h, w) maps that sum to 1 over h and w, and the K ROI names.

    Raises:
        ValueError: The model has no such maps.
    """
    part, remedy = ('fmri_encoder', 'give --subject') if store is None else ('encoding', 'leave out --subject')
    if getattr(model, part, None) is None:
        kind = 'image tower' if store is None else 'encoding head'
        raise ValueError(
            f'the model ({type(model).__name__}) has no {kind} with ROI maps; {remedy}, or use configs/nfn.'
        )
    device = next(model.parameters()).device
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    feats = model.backbone(model.data_preprocessor(dict(inputs=inputs), False)['inputs'])
    if store is None:
        return model.neck(feats).maps.float().cpu().numpy(), tuple(model.fmri_encoder.roi_names)
    names = tuple(listed(model.cfg.test_dataloader.dataset.get('roi_names', ROI_CLASSES)))
    geometry, _ = subject_geometry(store, names)
    geometry = geometry._replace(coordinates=geometry.coordinates.to(device))
    maps = model.encoding.roi_maps(model.encoding.maps(feats), geometry)
    return maps.float().cpu().numpy(), names


def draw_overlay(axes: Axes, image: np.ndarray, heat: Optional[np.ndarray] = None) -> None:
    """Draw an image with a map over it.

    Args:
        axes: Axes to draw in.
        image: (H, W, 3) uint8 RGB.
        heat: (h, w) map of any size and scale, not negative; None for the image alone.
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
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_grid(
    path: Union[str, Path],
    images: Sequence[np.ndarray],
    columns: Sequence[str],
    maps: Sequence[Sequence[np.ndarray]],
) -> None:
    """Write a figure with a row for each image: the image, then its maps.

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


def image_parser(description: str) -> argparse.ArgumentParser:
    """Make the parser of a tool that draws maps over image files or NSD images."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='*', metavar='IMAGE', help='image files')
    parser.add_argument('--out', type=Path, required=True, help='figure to write, e.g. .png or .pdf')
    parser.add_argument('--store', metavar='IMAGES.h5', help='use images of images_224.h5 or nsd_stimuli.hdf5')
    parser.add_argument('--ids', type=int, nargs='+', default=[], metavar='ID', help='their 0-based 73k ids')
    parser.add_argument('--image-size', type=int, metavar='S', help="side in pixels (default: as the config's data)")
    parser.add_argument('--device', default='cpu', help='(default: %(default)s)')
    return parser


def load_model(config: str, checkpoint: str, device: str) -> nn.Module:
    """Load a model by :func:`mmnfn.apis.get_model`; ValueError for a device that cannot be used."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'--device: {device!r} cannot be used: {str(error).splitlines()[0]}') from error
    return get_model(config, checkpoint, device)


def chosen_images(args: argparse.Namespace, model: nn.Module) -> List[np.ndarray]:
    """Read the images, (S, S, 3) uint8 RGB of the size that the model was trained with.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No images are given, or a file is not an image.
    """
    if bool(args.store) != bool(args.ids) or bool(args.images) == bool(args.store):
        raise ValueError('IMAGE: give image files, or --store with --ids.')
    found = list(args.images)
    if args.store:
        store = StimulusImages(args.store)
        try:
            found = [store[number] for number in args.ids]
        except KeyError as error:
            raise ValueError(f'--ids: {error.args[0]}') from error
    try:
        size = args.image_size or config_image_size(model.cfg)
    except ValueError as error:
        raise ValueError('--image-size: the config does not tell the size of its images: give it.') from error
    return [centre_square(read_image(image), size) for image in found]
