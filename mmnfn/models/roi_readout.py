"""A linear layer for each ROI, and the pooling of a ROI's tokens into one feature."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import List, Sequence, Tuple

import torch
from torch import Tensor, nn

from .subject_adapter import INIT_STD


class ROILinear(nn.Module):
    """Apply K linear layers, the k-th to ROI k, held in one weight.

    One parameter serves all ROIs, so it takes part in every step even if a subject lacks some of them (their slices get
    zero gradients). Distributed training without ``find_unused_parameters`` needs that.

    Args:
        num_rois: K.
        in_dims: Width of the input.
        out_dims: Width of the output.
    """

    def __init__(self, num_rois: int, in_dims: int, out_dims: int):
        super().__init__()
        bound = 1 / math.sqrt(in_dims)  # like torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(num_rois, out_dims, in_dims).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_rois, out_dims).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, K, in_dims) to (B, K, out_dims)."""
        return torch.einsum('bki,koi->bko', x, self.weight) + self.bias


@lru_cache(maxsize=128)
@torch.inference_mode(False)
def presence(sizes: Tuple[int, ...], device: torch.device) -> Tensor:
    """Mark the ROIs that have voxels or tokens: (K,) bool, cached on the device."""
    return torch.tensor([size > 0 for size in sizes], device=device)


class ROIReadout(nn.Module):
    """Pool the tokens of each ROI with several learned queries, then apply the ROI's linear layer.

    For each scale (a layer of the timeformer) and query a_{k,j}, the normalised tokens x_l of ROI k are averaged with
    weights softmax_l(a_{k,j}·x_l); the concatenated averages of all scales and queries go through ROI k's linear
    layer. Tokens of one ROI never reach the feature of another.

    Args:
        num_rois: K.
        embed_dims: D, width of the tokens.
        out_dims: Width of the ROI features.
        num_queries: Queries per ROI class and scale.
        num_scales: Number of layers that are read out.

    Raises:
        ValueError: If ``num_queries`` is below 1.
    """

    def __init__(self, num_rois: int, embed_dims: int, out_dims: int, num_queries: int = 8, num_scales: int = 1):
        super().__init__()
        if num_queries < 1:
            raise ValueError(f'num_queries must be at least 1, but got {num_queries}')
        self.queries = nn.Parameter(torch.randn(num_scales, num_rois, num_queries, embed_dims) * INIT_STD)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(num_scales))
        self.linear = ROILinear(num_rois, num_scales * num_queries * embed_dims, out_dims)

    def forward(self, scales: Sequence[Tuple[Tensor, Tuple[int, ...]]]) -> Tensor:
        """Pool the tokens.

        Args:
            scales: Packed tokens (B, T, D) and the K lengths of each scale, as the timeformer returns them.

        Returns:
            (B, K, out_dims), zero for ROIs of length 0.
        """
        pooled: List[Tensor] = []
        for norm, queries, (tokens, lengths) in zip(self.norms, self.queries, scales):
            rois = []
            for query, roi in zip(queries, norm(tokens).split(lengths, dim=1)):
                if roi.shape[1] == 0:
                    rois.append(roi.new_zeros(len(roi), query.numel()))
                    continue
                weights = torch.softmax(roi @ query.t(), dim=1)  # (B, L_k, queries)
                rois.append((weights.transpose(1, 2) @ roi).flatten(1))
            pooled.append(torch.stack(rois, dim=1))
        present = presence(scales[0][1], pooled[0].device)
        return self.linear(torch.cat(pooled, dim=2)).masked_fill(~present[:, None], 0.0)
