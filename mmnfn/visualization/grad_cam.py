"""Grad-CAM of what an image embedding is made of, for Figure 3 of the paper."""

from __future__ import annotations

import math
from typing import Optional, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

METHODS = ('gradcam', 'gradcam++', 'eigengradcam', 'layercam')


class ImageEmbedding(nn.Module):
    """From normalised images (B, 3, H, W) to embeddings (B, D): the context feature where a model has one, else the
    average of the backbone's last map.

    Args:
        model: With a ``backbone``, and perhaps a ``neck`` that gives a ``context``.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Embed."""
        maps = self.model.backbone(inputs)
        neck = getattr(self.model, 'neck', None)
        if neck is None:
            return maps[-1].mean(dim=(2, 3))
        features = neck(maps)
        return getattr(features, 'context', features)


def target_layer(model: nn.Module, stage: int = -1, layer: Optional[str] = None) -> nn.Module:
    """The layer whose activations are weighted: the last block of a stage of a Swin or a ConvNeXt.

    Args:
        model: With a ``backbone``.
        stage: Of the backbone.
        layer: Name of a layer of the model instead, for other backbones, e.g. ``'backbone.layer4'``.

    Raises:
        ValueError: There is no such layer or stage.
    """
    if layer is not None:
        try:
            return model.get_submodule(layer)
        except AttributeError as error:
            raise ValueError(f'layer: {type(model).__name__} has no layer {layer!r}: {error}') from error
    stages = getattr(model.backbone, 'stages', None)
    if stages is None:
        raise ValueError(f'layer: {type(model.backbone).__name__} has no stages; give the name of a layer.')
    if not -len(stages) <= stage < len(stages):
        raise ValueError(f'stage is {stage}, but {type(model.backbone).__name__} has {len(stages)} stages.')
    chosen = stages[stage]
    chosen = getattr(chosen, 'blocks', chosen)
    if not isinstance(chosen, (nn.Sequential, nn.ModuleList)):
        raise ValueError(
            f'layer: stages of {type(model.backbone).__name__} are no sequences of blocks; give the name of a layer.'
        )
    return chosen[-1]


def as_map(activations: Tensor) -> Tensor:
    """Activations as maps (B, C, h, w) of a square image: tokens (B, h·w, C), row by row, as Swin has them; maps stay,
    but for (B, h, w, C), as ViTSAM has them.

    Raises:
        ValueError: The tokens make no square.
    """
    if not isinstance(activations, Tensor):
        raise ValueError(f'layer: it gives {type(activations).__name__} and no tensor; choose a layer within it.')
    if activations.dim() == 4:
        _, height, width, last = activations.shape
        return activations.permute(0, 3, 1, 2) if height == width != last else activations
    side = math.isqrt(activations.shape[1])
    if activations.dim() != 3 or side * side != activations.shape[1]:
        raise ValueError(
            f'activations {tuple(activations.shape)} are neither maps (B, C, h, w) nor the tokens of a square image '
            '(B, h·w, C); choose another layer.'
        )
    return activations.transpose(1, 2).unflatten(2, (side, side))


def grad_cam(
    model: nn.Module,
    images: Sequence[np.ndarray],
    method: str = 'gradcam',
    stage: int = -1,
    layer: Optional[str] = None,
) -> np.ndarray:
    """Which places of an image make its embedding what it is (pytorch-grad-cam).

    There are no classes here. What is differentiated is the product of an image's embedding with its own direction
    less the mean direction of all given images, both held fixed: what is particular to this image. With a single image
    it is its own direction.

    Args:
        model: NeuroFusionNet, CaptionCLIP or BackboneFeatures, in evaluation mode.
        images: n images (S, S, 3) uint8 RGB.
        method: ``'gradcam'``, ``'gradcam++'``, ``'eigengradcam'`` or ``'layercam'``.
        stage: Of the backbone, whose last block is looked at.
        layer: Name of another layer.

    Returns:
        (n, S, S) float32 between 0 and 1, each map's own largest value being 1; all 0 where nothing speaks for the
        image, e.g. where all given images are the same.

    Raises:
        ImportError: pytorch-grad-cam is not installed.
        ValueError: An argument is unknown or does not fit the model.
    """
    if method not in METHODS:
        raise ValueError(f'method must be one of {", ".join(METHODS)}, but got {method!r}')
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise ImportError(f'Grad-CAM needs pytorch-grad-cam ({error}). Install it: pip install grad-cam.') from error
    names = dict(zip(METHODS, ('GradCAM', 'GradCAMPlusPlus', 'EigenGradCAM', 'LayerCAM')))
    embed, chosen = ImageEmbedding(model), target_layer(model, stage, layer)
    device = next(model.parameters()).device
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    # Which need a gradient, because the backbone's weights may be frozen.
    inputs = model.data_preprocessor(dict(inputs=batch), False)['inputs'].requires_grad_()
    reached = []
    handle = chosen.register_forward_hook(lambda module, inputs, output: reached.append(as_map(output)))
    try:
        with torch.no_grad():
            directions = F.normalize(embed(inputs), dim=1)
        if not reached:
            raise ValueError(f'layer: {layer!r} takes no part in the embedding of an image; choose another.')
    finally:
        handle.remove()
    if len(images) > 1:
        directions = directions - directions.mean(dim=0)
        directions[directions.norm(dim=1) < 1e-5] = 0  # what rounding leaves of equal images
    targets = [lambda embedding, direction=direction: (embedding * direction).sum() for direction in directions]
    try:
        with torch.enable_grad(), getattr(pytorch_grad_cam, names[method])(embed, [chosen], as_map) as cam:
            return cam(inputs, targets).astype(np.float32)
    finally:
        model.zero_grad(set_to_none=True)
