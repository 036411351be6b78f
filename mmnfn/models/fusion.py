"""Fusion of image and fMRI features, trained by masked-ROI prediction."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmnfn.registry import MODELS

from .fmri_encoder import FMRIFeatures
from .image_head import ImageFeatures
from .transformer import TransformerBlock


class FusedFeatures(NamedTuple):
    """Hold the output of the fusion for a batch.

    Attributes:
        fused: (B, E) representation of the image enriched by the brain: the context token after the last block. No
            loss acts on it; the blocks are trained for ``predicted`` alone.
        predicted: (B, K, D) predicted fMRI ROI features.
    """

    fused: Tensor
    predicted: Tensor


def random_roi_mask(present: Tensor, ratio: float, sizes: Optional[Sequence[int]] = None, rank: int = 0) -> Tensor:
    """Draw the ROIs that are hidden from the fusion.

    In each sample max(1, round(ratio · number of present ROIs)) of the present ROIs are hidden. The draw uses torch's
    global CPU generator on every device, so that a resumed run draws what the uninterrupted one would. Every rank draws
    for the samples of all ranks and takes its own, so that the draw does not depend on the number of ranks.

    Args:
        present: (B, K) bool.
        ratio: Share of hidden ROIs.
        sizes: Batch sizes of all ranks; None for (B,).
        rank: This process's rank.

    Returns:
        (B, K) bool on the device of ``present``, True where hidden; never True at an absent ROI.
    """
    sizes = sizes or (len(present),)
    order = torch.rand(sum(sizes), present.shape[1]).split(list(sizes))[rank].to(present.device, non_blocking=True)
    hidden = (present.sum(dim=1, keepdim=True) * ratio).round().clamp(min=1)
    rank = order.masked_fill(~present, 2.0).argsort(dim=1).argsort(dim=1)
    return (rank < hidden) & present


@MODELS.register_module()
class MaskedROIFusion(BaseModule):
    """Fuse both modalities in a transformer over [context, K image-ROI tokens, K fMRI-ROI tokens].

    The paper combines both modalities in a transformer block, but neither of its two losses mentions the result, and a
    contrastive loss on it would leak one modality into the other. Here those losses act on the outputs of the towers,
    and the fusion has a loss of its own: some fMRI-ROI tokens are hidden and predicted from the image and the other
    ROIs.

    The image tokens are not detached, so the image tower learns what helps to predict the brain. The fMRI tokens are
    detached as targets *and* as inputs; otherwise the fMRI tower could make the task easy with constant ROI codes.

    Args:
        num_rois: K of the fMRI encoder.
        in_dims: D, width of the towers' features.
        embed_dims: Width of the tokens.
        num_heads: Attention heads.
        num_layers: Transformer blocks.
        mlp_ratio: Hidden width of the MLPs in multiples of ``embed_dims``.
        mask_ratio: Share of a subject's ROIs that are hidden, at least one.
        drop_rate: Dropout.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``mask_ratio`` is not in (0, 1] or ``num_layers`` below 1.
    """

    def __init__(
        self,
        num_rois: int = 6,
        in_dims: int = 256,
        embed_dims: int = 256,
        num_heads: int = 4,
        num_layers: int = 1,
        mlp_ratio: float = 4.0,
        mask_ratio: float = 0.5,
        drop_rate: float = 0.0,
        init_cfg: Optional[dict] = None,
    ):
        super().__init__(init_cfg)
        if not 0 < mask_ratio <= 1:
            raise ValueError(f'mask_ratio must be in (0, 1], but got {mask_ratio}')
        if num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, but got {num_layers}; use fusion=None for none')
        self.num_rois = num_rois
        self.in_dims = in_dims
        self.mask_ratio = mask_ratio
        self.image_linear = nn.Linear(in_dims, embed_dims)
        self.fmri_linear = nn.Linear(in_dims, embed_dims)
        self.mask_token = nn.Parameter(torch.randn(embed_dims) * 0.02)
        self.type_embedding = nn.Parameter(torch.randn(3, embed_dims) * 0.02)  # context, image ROI, fMRI ROI
        self.roi_embedding = nn.Parameter(torch.randn(num_rois, embed_dims) * 0.02)
        self.layers = nn.ModuleList(
            TransformerBlock(embed_dims, num_heads, mlp_ratio, drop_rate) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dims)
        self.predict = nn.Linear(embed_dims, in_dims)

    def forward(self, image: ImageFeatures, fmri: FMRIFeatures, hidden: Optional[Tensor] = None) -> FusedFeatures:
        """Fuse the features of both towers.

        Args:
            image: Features of the image tower.
            fmri: Features of the fMRI tower for the same B samples.
            hidden: (B, K) bool, True at fMRI-ROI tokens to hide; None hides none.

        Returns:
            The fused representation (B, E), E = embed_dims, and the predicted ROI features (B, K, D).
        """
        context_type, image_type, fmri_type = self.type_embedding
        fmri_tokens = self.fmri_linear(fmri.rois.detach())
        if hidden is not None:
            fmri_tokens = torch.where(hidden[:, :, None], self.mask_token.to(fmri_tokens.dtype), fmri_tokens)
        tokens = torch.cat(
            [
                self.image_linear(image.context)[:, None] + context_type,
                self.image_linear(image.rois) + image_type + self.roi_embedding,
                fmri_tokens + fmri_type + self.roi_embedding,
            ],
            dim=1,
        )
        mask = F.pad(fmri.present, (1 + self.num_rois, 0), value=True)
        for layer in self.layers:
            tokens = layer(tokens, mask=mask)
        tokens = self.norm(tokens)
        return FusedFeatures(tokens[:, 0], self.predict(tokens[:, 1 + self.num_rois :]))

    def loss(
        self, image: ImageFeatures, fmri: FMRIFeatures, sizes: Optional[Sequence[int]] = None, rank: int = 0
    ) -> Tensor:
        """Compute L_fus by masked-ROI prediction: the mean over samples of the mean over their hidden ROIs.

        Args:
            image: Features of the image tower.
            fmri: Features of the fMRI tower for the same B samples.
            sizes, rank: See :func:`random_roi_mask`.

        Returns:
            1 − cosine of prediction and target, a scalar tensor.
        """
        hidden = random_roi_mask(fmri.present, self.mask_ratio, sizes, rank)
        predicted = F.normalize(self(image, fmri, hidden).predicted, dim=2)
        target = F.normalize(fmri.rois.detach(), dim=2)
        error = 1 - (predicted * target).sum(dim=2)
        return ((error * hidden).sum(dim=1) / hidden.sum(dim=1)).mean()
