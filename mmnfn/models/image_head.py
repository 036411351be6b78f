"""The image side of equations 6 and 7: context and ROI features of images."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Union

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmnfn.registry import MODELS

from .roi_readout import ROILinear


class ImageFeatures(NamedTuple):
    """Hold the features that the image tower computes for a batch.

    Attributes:
        rois: (B, K, D) local features p_i^k of equation 7.
        context: (B, D) global features p_i of equation 6.
        maps: (B, K, h, w) spatial weights of each ROI feature; they sum to 1 over h and w.
    """

    rois: Tensor
    context: Tensor
    maps: Tensor


def context_mlp(in_channels: int, hidden_dims: Optional[int], out_dims: int) -> nn.Sequential:
    """Make the MLP from the averaged feature map to the context feature."""
    hidden_dims = hidden_dims or in_channels
    return nn.Sequential(nn.Linear(in_channels, hidden_dims), nn.GELU(), nn.Linear(hidden_dims, out_dims))


def feature_maps(feats: Union[Tensor, Sequence[Tensor]]) -> Sequence[Tensor]:
    """List a backbone's outputs (B, C, h, w), whether it returns one or several; ValueError if one is not a map."""
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
    """Take the last of a backbone's outputs (B, C, h, w).

    Raises:
        ValueError: If it is not a map of ``in_channels`` channels.
    """
    (feat,) = feature_maps(feats[-1] if isinstance(feats, (tuple, list)) else feats)
    if feat.shape[1] != in_channels:
        raise ValueError(
            f'in_channels of the neck is {in_channels}, but the last feature map of the backbone '
            f'has {feat.shape[1]} channels; set neck.in_channels={feat.shape[1]}'
        )
    if feat.requires_grad and feat.device.type == 'cpu':
        # On CPUs PyTorch 2.1's GELU computes wrong gradients when the incoming gradient has other strides than its
        # output. That matters for backbones that end in a GELU.
        feat.register_hook(lambda grad: grad.contiguous())
    return feat


@MODELS.register_module()
class ROIImageHead(BaseModule):
    """Turn the backbone's last feature map into one context feature and K ROI features.

    Context: global average pooling, then an MLP. ROI k: the feature map is averaged with the softmax over space of a
    1×1 convolution as weights, and ROI k's linear layer projects the average to the fMRI feature space.

    Args:
        in_channels: Channels of the backbone's last feature map; 768 for Swin-S and ConvNeXt-S.
        out_dims: D of the fMRI encoder.
        num_rois: K of the fMRI encoder.
        hidden_dims: Hidden width of the context's MLP; None for ``in_channels``.
        init_cfg: MMEngine's initialisation.
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
        """Pool and project the last feature map.

        Args:
            feats: Output of the backbone, a sequence of feature maps (B, C, h, w); the last one is used.

        Returns:
            ROI features (B, K, D), context (B, D) and maps (B, K, h, w).

        Raises:
            ValueError: If the last output is not a map of ``in_channels`` channels.
        """
        feat = last_feature_map(feats, self.in_channels)
        context = self.context(feat.mean(dim=(2, 3)))
        weights = self.map_conv(feat).flatten(2).softmax(dim=2)
        pooled = torch.einsum('bks,bcs->bkc', weights, feat.flatten(2))
        return ImageFeatures(self.roi_linear(pooled), context, weights.unflatten(2, feat.shape[2:]))
