"""A linear layer for each ROI."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ROILinear(nn.Module):
    """K linear layers, the k-th for ROI k, held in one weight.

    As one parameter serves all ROIs, it takes part in every step even where a subject lacks some of them (their slices
    get zero gradients), as distributed training without ``find_unused_parameters`` needs.

    Args:
        num_rois: K, number of layers.
        in_dims: Width of the input.
        out_dims: Width of the output.
        bias: Whether to add a bias.
    """

    def __init__(self, num_rois: int, in_dims: int, out_dims: int, bias: bool = True):
        super().__init__()
        bound = 1 / math.sqrt(in_dims)  # as torch.nn.Linear
        self.weight = nn.Parameter(torch.empty(num_rois, out_dims, in_dims).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_rois, out_dims).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, in_dims) → (B, K, out_dims)."""
        x = torch.einsum('bki,koi->bko', x, self.weight)
        return x if self.bias is None else x + self.bias
