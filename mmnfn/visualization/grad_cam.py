"""Grad-CAM of image embeddings, for Figure 3 of the paper."""

from __future__ import annotations

import math
from typing import Optional, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

METHODS = ('gradcam', 'gradcam++', 'eigengradcam', 'layercam')


class ImageEmbedding(nn.Module):
    """Embed normalised images (B, 3, H, W) as (B, D).

    The embedding is the model's context feature if it has one, else the average of the backbone's last map.

    Args:
        model: A model with a ``backbone``, and perhaps a ``neck`` that gives a ``context``.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Embed a batch."""
        maps = self.model.backbone(inputs)
        neck = getattr(self.model, 'neck', None)
        if neck is None:
            return maps[-1].mean(dim=(2, 3))
        features = neck(maps)
        return getattr(features, 'context', features)


def target_layer(model: nn.Module, stage: int = -1, layer: Optional[str] = None) -> nn.Module:
    """Find the layer whose activations are weighted: the last block of a stage of a Swin or a ConvNeXt.

    Args:
        model: A model with a ``backbone``.
        stage: Stage of the backbone.
        layer: For other backbones, the name of a layer of the model, e.g. ``'backbone.layer4'``.

    Raises:
        ValueError: There is no such layer or stage.
    """
    try:
        if layer is not None:
            return model.get_submodule(layer)
        blocks = model.backbone.stages[stage]
        block = getattr(blocks, 'blocks', blocks)[-1]
        if not isinstance(block, nn.Module):  # some backbones list the names of their stages
            raise TypeError('its stages are no modules')
        return block
    except (AttributeError, IndexError, TypeError) as error:
        wanted = f'stage {stage} made of blocks' if layer is None else f'layer {layer!r}'
        raise ValueError(
            f'layer: {type(model).__name__} has no {wanted}: {error}. Give the name of a layer, e.g. backbone.layer4.'
        ) from error


def as_map(activations: Tensor) -> Tensor:
    """Arrange activations of square images as maps (B, C, h, w).

    Accepts maps, and tokens (B, h·w, C) row by row, as Swin returns them.

    Raises:
        ValueError: The tokens do not form a square.
    """
    if not isinstance(activations, Tensor):
        raise ValueError(f'layer: it returns {type(activations).__name__} and no tensor; choose a layer within it.')
    if activations.dim() == 4:
        return activations
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
    """Map the places of images that determine their embeddings (pytorch-grad-cam).

    There are no classes to explain. The target is the product of an image's embedding with a fixed direction: its own
    direction minus the mean direction of all given images, which is what sets it apart. For a single image the target
    is its own direction.

    Args:
        model: NeuroFusionNet, CaptionCLIP or BackboneFeatures, in evaluation mode.
        images: n images (S, S, 3) uint8 RGB.
        method: ``'gradcam'``, ``'gradcam++'``, ``'eigengradcam'`` or ``'layercam'``.
        stage: Stage of the backbone; its last block is explained.
        layer: Name of another layer.

    Returns:
        (n, S, S) float32 from 0 to 1, the maximum of each map; all 0 if nothing sets the image apart, e.g. if all
        given images are equal.

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
    # The inputs need a gradient because the backbone's weights may be frozen.
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
        directions[directions.norm(dim=1) < 1e-5] = 0  # rounding errors of equal images
    targets = [lambda embedding, direction=direction: (embedding * direction).sum() for direction in directions]
    try:
        with torch.enable_grad(), getattr(pytorch_grad_cam, names[method])(embed, [chosen], as_map) as cam:
            return cam(inputs, targets).astype(np.float32)
    finally:
        model.zero_grad(set_to_none=True)
