"""The image side of equations 6 and 7: context and ROI features of images."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmnfn.registry import MODELS
from mmnfn.utils import listed

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


def feature_maps(feats: Union[Tensor, Sequence[Tensor]]) -> List[Tensor]:
    """List a backbone's outputs (B, C, h, w), whether it returns one or several; ValueError if one is not a map."""
    maps = list(feats) if isinstance(feats, (tuple, list)) else [feats]
    for feat in maps:
        if not isinstance(feat, Tensor) or feat.dim() != 4:
            found = tuple(feat.shape) if isinstance(feat, Tensor) else type(feat).__name__
            raise ValueError(
                f'the backbone must return feature maps (B, C, h, w), but an output of it is {found}; set '
                "out_type='featmap' for vision transformers, gap_before_final_norm=False for ConvNeXt"
            )
    return maps


def last_feature_maps(
    feats: Union[Tensor, Sequence[Tensor]], in_channels: Sequence[int], part: str = 'neck'
) -> List[Tensor]:
    """Take the last of a backbone's outputs (B, C, h, w), as many as there are ``in_channels``.

    Args:
        feats: Output of the backbone, one map or several.
        in_channels: Channels of the maps that are wanted.
        part: Who wants them, for the error.

    Raises:
        ValueError: If an output is not a map, or they have other channels.
    """
    feats = feats if isinstance(feats, (tuple, list)) else [feats]
    maps = feature_maps(feats[-len(in_channels) :])
    found = tuple(feat.shape[1] for feat in maps)
    if found != tuple(in_channels):
        raise ValueError(
            f'in_channels of the {part} is {tuple(in_channels)}, but the last feature maps of the backbone have '
            f'{found} channels; set {part}.in_channels to them, or out_indices of the backbone to the stages wanted'
        )
    for feat in maps:
        if feat.requires_grad and feat.device.type == 'cpu':
            # On CPUs PyTorch 2.1's GELU computes wrong gradients when the incoming gradient has other strides than its
            # output. That matters for backbones that end in a GELU.
            feat.register_hook(lambda grad: grad.contiguous())
    return maps


@MODELS.register_module()
class ROIImageHead(BaseModule):
    """Turn the backbone's feature maps into one context feature and K ROI features.

    Context: global average pooling of the last map, then an MLP. ROI k: a map is averaged with the softmax over space
    of a 1×1 convolution as weights, and ROI k's linear layer projects the average to the fMRI feature space. That map
    is the last one, or with several ``in_channels`` the finest of a top-down pyramid (1×1 convolutions of the maps,
    summed from the coarsest to the finest, then a 3×3 convolution), because few cells cannot say where something is.

    Args:
        in_channels: Channels of the backbone's last feature map, 768 for Swin-S and ConvNeXt-S; or those of several
            maps, from fine to coarse, for a pyramid.
        out_dims: D of the fMRI encoder.
        num_rois: K of the fMRI encoder.
        hidden_dims: Hidden width of the context's MLP; None for the channels of the last map.
        pyramid_dims: Channels of the pyramid.
        init_cfg: MMEngine's initialisation.
    """

    def __init__(
        self,
        in_channels: Union[int, Sequence[int]],
        out_dims: int = 256,
        num_rois: int = 6,
        hidden_dims: Optional[int] = None,
        pyramid_dims: int = 128,
        init_cfg: Optional[dict] = None,
    ):
        super().__init__(init_cfg)
        self.in_channels = tuple(listed(in_channels))
        self.out_dims = out_dims
        self.num_rois = num_rois
        self.context = context_mlp(self.in_channels[-1], hidden_dims, out_dims)
        self.lateral, dims = None, self.in_channels[-1]
        if len(self.in_channels) > 1:
            dims = pyramid_dims
            self.lateral = nn.ModuleList(nn.Conv2d(channels, dims, 1) for channels in self.in_channels)
            self.smooth = nn.Sequential(nn.Conv2d(dims, dims, 3, padding=1), nn.ReLU())
        self.map_conv = nn.Conv2d(dims, num_rois, kernel_size=1, bias=False)  # softmax ignores a bias
        self.roi_linear = ROILinear(num_rois, dims, out_dims)

    def local_features(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute the map (B, C, h, w) from which ROI features are pooled."""
        if self.lateral is None:
            return maps[-1]
        top = 0
        for lateral, feat in reversed(list(zip(self.lateral, maps))):
            own = lateral(feat)
            top = own + F.interpolate(top, size=own.shape[2:]) if isinstance(top, Tensor) else own
        return self.smooth(top)

    def forward(self, feats: Union[Tensor, Sequence[Tensor]]) -> ImageFeatures:
        """Pool and project the feature maps.

        Args:
            feats: Output of the backbone, a sequence of feature maps (B, C, h, w) from fine to coarse; as many as there
                are ``in_channels`` are used, from the last.

        Returns:
            ROI features (B, K, D), context (B, D) and maps (B, K, h, w).

        Raises:
            ValueError: If they are not maps of ``in_channels`` channels.
        """
        maps = last_feature_maps(feats, self.in_channels)
        context = self.context(maps[-1].mean(dim=(2, 3)))
        local = self.local_features(maps)
        weights = self.map_conv(local).flatten(2).softmax(dim=2)
        pooled = torch.einsum('bks,bcs->bkc', weights, local.flatten(2))
        return ImageFeatures(self.roi_linear(pooled), context, weights.unflatten(2, local.shape[2:]))
