"""The fMRI tower: from the responses of a subject to ROI features and a global feature."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmnfn.registry import MODELS
from mmnfn.structures import SubjectGeometry
from mmnfn.utils import listed

from .roi_readout import ROIReadout, presence
from .subject_adapter import INIT_STD
from .timeformer import MultiScaleFMRITimeformer
from .transformer import TransformerBlock
from .voxel_embedding import VoxelEmbedding

INIT = dict(type='TruncNormal', layer='Linear', std=INIT_STD)


class FMRIFeatures(NamedTuple):
    """Hold the features that the fMRI tower computes for a batch.

    Attributes:
        rois: (B, K, D) ROI features q_i^k of equation 7; zero where the subject lacks the ROI.
        context: (B, D) global features q_i of equation 6.
        present: (B, K) bool, False where the subject lacks the ROI.
    """

    rois: Tensor
    context: Tensor
    present: Tensor


class RegionInteraction(nn.Module):
    """Combine the ROI features into a global feature: a class token and transformer layers over the present ROIs.

    Args:
        num_rois: K.
        dims: Width of the features.
        num_heads: Attention heads.
        num_layers: Layers; 0 averages the ROI features instead.
        mlp_ratio: Hidden width of the MLPs in multiples of ``dims``.
        drop_rate: Dropout.
    """

    def __init__(self, num_rois: int, dims: int, num_heads: int, num_layers: int, mlp_ratio: float, drop_rate: float):
        super().__init__()
        self.layers = nn.ModuleList(TransformerBlock(dims, num_heads, mlp_ratio, drop_rate) for _ in range(num_layers))
        if num_layers > 0:
            self.class_token = nn.Parameter(torch.randn(dims) * 0.02)
            self.roi_embedding = nn.Parameter(torch.randn(num_rois, dims) * 0.02)
        self.norm = nn.LayerNorm(dims)
        self.linear = nn.Linear(dims, dims)

    def forward(self, rois: Tensor, present: Tensor) -> Tensor:
        """Combine the ROI features (B, K, D) that are ``present`` (B, K) into the global feature (B, D)."""
        if not self.layers:
            weights = present.to(rois.dtype)
            context = torch.einsum('bkd,bk->bd', rois, weights / weights.sum(dim=1, keepdim=True))
            return self.linear(self.norm(context))
        tokens = torch.cat([self.class_token.expand(len(rois), 1, -1), rois + self.roi_embedding], dim=1)
        mask = F.pad(present, (1, 0), value=True)
        for layer in self.layers:
            tokens = layer(tokens, mask=mask)
        return self.linear(self.norm(tokens[:, 0]))


@MODELS.register_module()
class FMRIEncoder(BaseModule):
    """Encode responses by voxel embedding, Multi-scale fMRI Timeformer, ROI read-out and region interaction.

    Responses → tokens (equations 1 to 3) → h sliding-window layers (equations 4 and 5) → one feature per ROI, by
    attention pooling over the tokens of all layers → one global feature, by interaction of the ROIs. ROI features are
    taken before the interaction, so each depends on its own ROI alone. All parameters take part in every step,
    whichever ROIs the subject has.

    Args:
        roi_names: The K ROIs in the order of the dataset; a string for a single one.
        embed_dims: Width of the tokens.
        out_dims: D, width of the ROI features and the global feature.
        num_heads: Attention heads of timeformer and region interaction.
        mlp_ratio: Hidden width of the MLPs in multiples of their width.
        kernel_size: Voxels in one token.
        stride: Voxels from one token to the next.
        tail: ``'drop'`` the voxels at the end that do not fill a kernel, or ``'pad'`` them, see
            :class:`VoxelEmbedding`.
        position: ``'3d'``, ``'1d'`` or ``'none'``, see :class:`VoxelEmbedding`.
        position_dims: Width of the position embedding v.
        share_weights: Whether all ROIs share the convolutions.
        window_size: w, in tokens.
        window_stride: s, in tokens.
        num_layers: h.
        merge: ``'overlap'`` or ``'concat'``, see :class:`MultiScaleFMRITimeformer`.
        multi_scale: Read out the tokens of every layer, or only those of the last one.
        num_queries: Pooling queries per ROI class and layer.
        interaction_layers: Layers of the region interaction; 0 averages the ROI features.
        drop_rate: Dropout.
        drop_path_rate: Stochastic depth of the timeformer.
        with_cp: Recompute the timeformer's layers in the backward pass to save memory.
        adapter: Arguments of :class:`SubjectAdapter` without ``embed_dims``; None for the paper's form.
        convolution: Whether there is a convolution shared by the subjects, see :class:`VoxelEmbedding`.
        init_cfg: MMEngine's initialisation. By default linear layers start with std 0.02 like all other weights, so
            that Adam trains them at the same pace.

    Raises:
        ValueError: If ``roi_names`` is empty or repeats a name, or another argument is out of range.
    """

    def __init__(
        self,
        roi_names: Union[str, Sequence[str]],
        embed_dims: int = 128,
        out_dims: int = 256,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        kernel_size: int = 32,
        stride: int = 16,
        tail: str = 'drop',
        position: str = '3d',
        position_dims: int = 64,
        share_weights: bool = True,
        window_size: int = 64,
        window_stride: int = 32,
        num_layers: int = 2,
        merge: str = 'overlap',
        multi_scale: bool = True,
        num_queries: int = 8,
        interaction_layers: int = 1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        adapter: Optional[dict] = None,
        convolution: bool = True,
        init_cfg: Optional[dict] = INIT,
    ):
        super().__init__(init_cfg)
        self.roi_names = tuple(listed(roi_names))
        num_rois = len(self.roi_names)
        if num_rois == 0 or len(set(self.roi_names)) < num_rois:
            raise ValueError(f'roi_names must hold at least one name and none twice, but got {self.roi_names}')
        self.out_dims = out_dims
        self.multi_scale = multi_scale
        self.embedding = VoxelEmbedding(
            num_rois,
            embed_dims,
            kernel_size,
            stride,
            position,
            position_dims,
            share_weights,
            tail,
            adapter,
            convolution,
        )
        self.timeformer = MultiScaleFMRITimeformer(
            embed_dims,
            num_heads,
            num_layers,
            window_size,
            window_stride,
            merge,
            mlp_ratio,
            drop_rate,
            drop_path_rate,
            with_cp,
        )
        self.readout = ROIReadout(num_rois, embed_dims, out_dims, num_queries, num_layers if multi_scale else 1)
        self.interaction = RegionInteraction(num_rois, out_dims, num_heads, interaction_layers, mlp_ratio, drop_rate)

    @property
    def num_rois(self) -> int:
        """Count the ROI classes, K."""
        return len(self.roi_names)

    def _check(self, responses: Tensor, geometry: SubjectGeometry) -> None:
        if tuple(geometry.roi_names) != self.roi_names:
            raise ValueError(
                f'the data of {geometry.subject} has the ROIs {tuple(geometry.roi_names)}, but the fMRI encoder has '
                f'{self.roi_names}; give both the same roi_names in the same order'
            )
        num_voxels = sum(geometry.roi_sizes)
        if len(geometry.roi_sizes) != self.num_rois or num_voxels == 0:
            raise ValueError(
                f'roi_sizes of {geometry.subject} must be {self.num_rois} numbers, at least one above 0, '
                f'but got {tuple(geometry.roi_sizes)}; choose ROIs that the subject has'
            )
        if responses.shape[1:] != (num_voxels,) or geometry.coordinates.shape != (num_voxels, 3):
            raise ValueError(
                f'{geometry.subject} has {num_voxels} voxels, the sum of roi_sizes, so responses must have shape '
                f'(B, {num_voxels}) and coordinates ({num_voxels}, 3), but got {tuple(responses.shape)} and '
                f'{tuple(geometry.coordinates.shape)}'
            )

    def forward(
        self, responses: Union[Tensor, Sequence[Tensor]], geometry: Union[SubjectGeometry, Sequence[SubjectGeometry]]
    ) -> FMRIFeatures:
        """Encode a batch of one subject, or of several subjects one after another.

        Args:
            responses: (B, N) z-scored responses; a list with one tensor per subject if there are several.
            geometry: Geometry of the subject, N = sum(geometry.roi_sizes); a list if there are several.

        Returns:
            ROI features (B, K, D), global feature (B, D) and presence (B, K).

        Raises:
            ValueError: If geometry and responses do not fit each other or the encoder.
        """
        groups = zip(responses, geometry) if isinstance(responses, list) else [(responses, geometry)]
        rois, present = [], []
        for own, subject in groups:
            self._check(own, subject)
            tokens = self.embedding(own.to(self.embedding.bias.dtype), subject)
            scales = self.timeformer(tokens, self.embedding.lengths(subject))
            rois.append(self.readout(scales if self.multi_scale else scales[-1:]))
            present.append(presence(tuple(subject.roi_sizes), tokens.device).expand(len(own), -1))
        features, there = torch.cat(rois), torch.cat(present)
        return FMRIFeatures(features, self.interaction(features, there), there)
