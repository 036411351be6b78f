"""From voxels to tokens, equations 1 to 3."""

from __future__ import annotations

import math
from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmnfn.structures import SubjectGeometry

from .subject_adapter import INIT_STD, SubjectAdapter

POSITIONS = ('3d', '1d', 'none')
TAILS = ('drop', 'pad')
COORDINATE_SCALE_MM = 50.0


def sinusoidal_position(length: int, dims: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Compute sines and cosines of the index, (length, dims), with wavelengths from 2π to 2π·10,000 voxels."""
    half = (dims + 1) // 2
    frequency = torch.exp(-math.log(10000.0) / half * torch.arange(half, device=device, dtype=dtype))
    angle = torch.arange(length, device=device, dtype=dtype)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dims]


class VoxelEmbedding(nn.Module):
    """Embed the ROIs of one subject as tokens: r^k = Conv1D(m^k) + Conv1D(v(m^k)), equations 1 to 3.

    m^k are the N_k responses of ROI k, v_i = Linear(x_i, y_i, z_i) embeds the position of voxel i, and both
    convolutions run over the voxels with the same kernel and stride, which gives L_k = ⌊(N_k − kernel) / stride⌋ + 1
    tokens. The last (N_k − kernel) mod stride voxels, at most 15, thus reach no token; ``tail='pad'`` appends zeros
    until they do. A ROI with fewer voxels than the kernel is always padded to one kernel; a ROI without voxels has no
    tokens. The second term depends on the subject alone and is computed once per batch. Its two linear maps are first
    folded into one convolution over (x, y, z, 1), which gives the same result for a fraction of the work. This also
    means that with ``'3d'`` a ``position_dims`` above 3 adds parameters but no expressiveness.

    A :class:`SubjectAdapter` adds a term of the subject's own, Σ_i m_i·a(i) over the voxels i of a token, with a vector
    a(i) for each voxel of the subject. With ``convolution=False`` it replaces the convolution of the responses, and the
    whole ROI becomes one token, like MindEye2's linear layer per subject and ROI.

    Coordinates are centred on the mean of the subject's voxels and divided by 50 mm, so that they are of order one and
    comparable between subjects.

    Args:
        num_rois: K.
        embed_dims: D, width of the tokens.
        kernel_size: Voxels in one token.
        stride: Voxels from one token to the next.
        position: v_i: ``'3d'`` from the coordinates (the paper's), ``'1d'`` from sines of the voxel's index in its ROI
            (the paper's ablation), or ``'none'``.
        position_dims: d, width of v_i.
        share_weights: One pair of convolutions for all ROIs, or one for each.
        tail: ``'drop'`` (the paper's formula) or ``'pad'``.
        adapter: Arguments of :class:`SubjectAdapter` without ``embed_dims``; None for none (the paper's form).
        convolution: Whether there is a convolution shared by the subjects.

    Raises:
        ValueError: If ``position`` or ``tail`` is unknown, a size is below 1, or there is neither convolution nor
            adapter.
    """

    def __init__(
        self,
        num_rois: int,
        embed_dims: int,
        kernel_size: int = 32,
        stride: int = 16,
        position: str = '3d',
        position_dims: int = 64,
        share_weights: bool = True,
        tail: str = 'drop',
        adapter: Optional[dict] = None,
        convolution: bool = True,
    ):
        super().__init__()
        if position not in POSITIONS:
            raise ValueError(f'position must be one of {POSITIONS}, but got {position!r}')
        if tail not in TAILS:
            raise ValueError(f'tail must be one of {TAILS}, but got {tail!r}')
        if min(kernel_size, stride, position_dims) < 1:
            raise ValueError(
                'kernel_size, stride and position_dims must be at least 1, but got '
                f'{kernel_size}, {stride} and {position_dims}'
            )
        if not convolution and (adapter is None or position != 'none'):
            raise ValueError(
                f"convolution=False needs an adapter and position='none', but got {adapter} and {position!r}"
            )
        self.num_rois = num_rois
        self.convolution = convolution
        self.adapter = None if adapter is None else SubjectAdapter(embed_dims, **adapter)
        self.kernel_size = kernel_size
        self.stride = stride
        self.position = position
        self.position_dims = position_dims
        self.tail = tail
        groups = 1 if share_weights else num_rois
        if convolution:
            self.response_weight = nn.Parameter(torch.randn(groups, embed_dims, kernel_size) * INIT_STD)
        self.bias = nn.Parameter(torch.zeros(groups, embed_dims))
        if position != 'none':
            self.position_weight = nn.Parameter(torch.randn(groups, embed_dims, position_dims, kernel_size) * INIT_STD)
        if position == '3d':
            self.position_linear = nn.Linear(3, position_dims)

    def num_tokens(self, num_voxels: int) -> int:
        """Compute L_k of a ROI of ``num_voxels`` voxels; 0 only if it has none."""
        if num_voxels == 0:
            return 0
        if not self.convolution:
            return 1
        excess = max(num_voxels - self.kernel_size, 0)
        return (math.ceil(excess / self.stride) if self.tail == 'pad' else excess // self.stride) + 1

    def lengths(self, geometry: SubjectGeometry) -> Tuple[int, ...]:
        """Compute the lengths (L_1, …, L_K) of a subject."""
        return tuple(self.num_tokens(size) for size in geometry.roi_sizes)

    def _slices(self, x: Tensor) -> Tensor:
        """Slice (…, N_k) into (…, L_k, kernel), the input of each step of the convolution."""
        span = (self.num_tokens(x.shape[-1]) - 1) * self.stride + self.kernel_size
        return F.pad(x, (0, span - x.shape[-1])).unfold(-1, self.kernel_size, self.stride)

    def _positions(self, geometry: SubjectGeometry) -> List[Tensor]:
        """Make the input (P, N_k) of the folded second convolution per ROI; P is 4 or, with '1d', position_dims."""
        dtype = self.bias.dtype
        coordinates = geometry.coordinates.to(dtype)
        if self.position == '1d':
            return [
                sinusoidal_position(size, self.position_dims, coordinates.device, dtype).t()
                for size in geometry.roi_sizes
            ]
        coordinates = (coordinates - coordinates.mean(dim=0)) / COORDINATE_SCALE_MM
        coordinates = torch.cat([coordinates, torch.ones_like(coordinates[:, :1])], dim=1)
        return list(coordinates.t().split(geometry.roi_sizes, dim=1))

    def _position_kernel(self) -> Tensor:
        """Fold the linear map of equation 1 into the second convolution: (groups, embed_dims, P, kernel)."""
        if self.position == '1d':
            return self.position_weight
        linear = torch.cat([self.position_linear.weight, self.position_linear.bias[:, None]], dim=1)
        return torch.einsum('godt,dp->gopt', self.position_weight, linear)

    def forward(self, responses: Tensor, geometry: SubjectGeometry) -> Tensor:
        """Embed a batch.

        Args:
            responses: (B, N) z-scored responses of one subject.
            geometry: Geometry of that subject, N = sum(geometry.roi_sizes).

        Returns:
            (B, L_1 + … + L_K, D) tokens, the ROIs one after another.
        """
        voxels = responses.split(geometry.roi_sizes, dim=1)
        kernel = self._position_kernel().flatten(2) if self.position != 'none' else None
        positions = self._positions(geometry) if self.position != 'none' else None
        own = self.adapter(geometry).split(geometry.roi_sizes) if self.adapter is not None else None
        tokens = []
        for k, size in enumerate(geometry.roi_sizes):
            if size == 0:
                continue
            group = k if len(self.bias) > 1 else 0
            if not self.convolution:
                tokens.append((voxels[k] @ own[k] + self.bias[group])[:, None])
                continue
            slices = self._slices(voxels[k])
            token = F.linear(slices, self.response_weight[group], self.bias[group])
            if own is not None:  # (L_k, B, kernel) × (L_k, kernel, D)
                vectors = self._slices(own[k].t()).permute(1, 2, 0)
                token = token + (slices.transpose(0, 1) @ vectors).transpose(0, 1)
            if positions is not None:
                places = self._slices(positions[k]).transpose(0, 1).flatten(1)  # (L_k, P·kernel)
                token = token + F.linear(places, kernel[group])
            tokens.append(token)
        return torch.cat(tokens, dim=1)
