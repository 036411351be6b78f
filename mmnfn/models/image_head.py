"""Context and ROI features of images, the image side of equations 6 and 7."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmnfn.registry import MODELS

from .roi_linear import ROILinear


class ImageFeatures(NamedTuple):
    """What the image tower says of a batch.

    Attributes:
        rois: (B, K, D), the local features p_i^k of equation 7.
        context: (B, D), the global features p_i of equation 6.
        maps: (B, K, h, w), where in the image each ROI feature was taken; sums to 1 over h and w.
    """

    rois: Tensor
    context: Tensor
    maps: Tensor


def context_mlp(in_channels: int, hidden_dims: Optional[int], out_dims: int) -> nn.Sequential:
    """From the averaged feature map to the context feature."""
    hidden_dims = hidden_dims or in_channels
    return nn.Sequential(nn.Linear(in_channels, hidden_dims), nn.GELU(), nn.Linear(hidden_dims, out_dims))


def feature_maps(feats: Union[Tensor, Sequence[Tensor]]) -> Sequence[Tensor]:
    """A backbone's outputs (B, C, h, w), whether it returns one or several; ValueError if one is no such map."""
    maps = feats if isinstance(feats, (tuple, list)) else (feats,)
    for feat in maps:
        if not isinstance(feat, Tensor) or feat.dim() != 4:
            found = tuple(feat.shape) if isinstance(feat, Tensor) else type(feat).__name__
            raise ValueError(
                f'the backbone must return feature maps (B, C, h, w), but an output of it is {found}; set '
                "out_type='featmap' for vision transformers, gap_before_final_norm=False for ConvNeXt"
            )
    return maps


def last_feature_map(feats: Union[Tensor, Sequence[Tensor]], in_channels: int) -> Tensor:
    """The last of a backbone's outputs (B, C, h, w).

    Raises:
        ValueError: If it is no such map or has not ``in_channels`` channels.
    """
    (feat,) = feature_maps(feats[-1] if isinstance(feats, (tuple, list)) else feats)
    if feat.shape[1] != in_channels:
        raise ValueError(
            f'in_channels of the neck is {in_channels}, but the last feature map of the backbone '
            f'has {feat.shape[1]} channels; set neck.in_channels={feat.shape[1]}'
        )
    if feat.requires_grad and feat.device.type == 'cpu':
        # PyTorch 2.1's GELU for CPUs computes wrong gradients where the incoming one has other strides than its
        # output, which matters for a backbone that ends in a GELU.
        feat.register_hook(lambda grad: grad.contiguous())
    return feat


@MODELS.register_module()
class ROIImageHead(BaseModule):
    """Neck that turns the backbone's last feature map into one context feature and K ROI features.

    Context: global average pooling, then an MLP. ROI k: a 1×1 convolution gives a map, its softmax over space the
    weights with which the feature map is averaged, and ROI k's linear layer projects the average to the fMRI feature
    space.

    Args:
        in_channels: Channels of the backbone's last feature map; 768 for Swin-S and ConvNeXt-S.
        out_dims: D, as of the fMRI encoder.
        num_rois: K, as of the fMRI encoder.
        hidden_dims: Hidden width of the context's MLP; None for ``in_channels``.
        init_cfg: Initialisation of mmengine.
    """

    def __init__(
        self,
        in_channels: int,
        out_dims: int = 256,
        num_rois: int = 6,
        hidden_dims: Optional[int] = None,
        init_cfg: Optional[dict] = None,
    ):
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.out_dims = out_dims
        self.num_rois = num_rois
        self.context = context_mlp(in_channels, hidden_dims, out_dims)
        self.map_conv = nn.Conv2d(in_channels, num_rois, kernel_size=1, bias=False)  # softmax ignores a bias
        self.roi_linear = ROILinear(num_rois, in_channels, out_dims)

    def forward(self, feats: Union[Tensor, Sequence[Tensor]]) -> ImageFeatures:
        """Pool and project.

        Args:
            feats: The backbone's output, a sequence of feature maps (B, C, h, w); the last one is used.

        Returns:
            ROI features (B, K, D), context (B, D) and maps (B, K, h, w).

        Raises:
            ValueError: If the last output is no such map or has not ``in_channels`` channels.
        """
        feat = last_feature_map(feats, self.in_channels)
        context = self.context(feat.mean(dim=(2, 3)))
        weights = self.map_conv(feat).flatten(2).softmax(dim=2)
        pooled = torch.einsum('bks,bcs->bkc', weights, feat.flatten(2))
        return ImageFeatures(self.roi_linear(pooled), context, weights.unflatten(2, feat.shape[2:]))
