"""The transformer block that fMRI tower and fusion share, and the sliding windows of equation 4 for its attention."""

from __future__ import annotations

from functools import lru_cache
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn


class Windows(NamedTuple):
    """Hold windows that are gathered one after another, those of equal length together.

    Attributes:
        index: (N,) int64, place in the layout of each token of the windows.
        share: (N, 1) float32, one over the number of windows that hold the token.
        shapes: (W, w), the number of windows W of each length w; N is the sum of W·w.
    """

    index: Tensor
    share: Tensor
    shapes: Tuple[Tuple[int, int], ...]


class WindowPlan(NamedTuple):
    """Hold the windows over a sequence of ROIs, most of them as views.

    If each ROI begins at a multiple of the stride, the full windows are w / s partitions of the sequence into pieces of
    w places, each shifted by s places against the one before. These are views of the sequence, and of the concatenated
    samples of a batch if its length is a multiple of w. The layout pads the sequence to make that so. Pieces that are
    not windows, because they cross the end of a ROI or a sample, are computed and get the weight 0.

    Attributes:
        size: w.
        places: (T',) int64, token at each place of the layout (any token where it is padded); None if the layout is the
            sequence itself.
        restore: (T,) int64, place of each token in the layout; None like ``places``.
        partitions: First place of each partition, and (T', 1) float32: one over the number of windows that hold the
            token if the partition's piece is a window, else 0.
        short: Windows of fewer than w tokens, or None.
    """

    size: int
    places: Optional[Tensor]
    restore: Optional[Tensor]
    partitions: Tuple[Tuple[int, Tensor], ...]
    short: Optional[Windows]


def window_spans(length: int, size: int, stride: int) -> List[Tuple[int, int]]:
    """List the slices (start, end) of equation 4 over one ROI.

    They start at 0, stride, 2·stride, … until the whole sequence is covered; the last one may be shorter than ``size``.

    Args:
        length: L_k, number of tokens; 0 gives no slices.
        size: w, tokens in a window.
        stride: s ≤ w.

    Returns:
        The slices in order.
    """
    if length == 0:
        return []
    count = -(-max(length - size, 0) // stride) + 1
    return [(start, min(start + size, length)) for start in range(0, count * stride, stride)]


@lru_cache(maxsize=128)
@torch.inference_mode(False)  # a cached inference tensor could not be used in training
def sliding_plan(lengths: Tuple[int, ...], size: int, stride: int, device: torch.device) -> WindowPlan:
    """Plan the windows of all ROIs of a packed sequence; no window holds tokens of two ROIs.

    Args:
        lengths: (L_1, …, L_K) of the ROIs, which follow each other in the sequence.
        size: w, a multiple of ``stride``.
        stride: s.
        device: Device of the plan.

    Returns:
        The plan, which is cached.
    """
    offsets = [sum(lengths[:k]) for k in range(len(lengths))]
    places: List[int] = []
    starts: Dict[int, int] = {}  # of ROI k in the layout; ROIs without a full window come last
    for k in sorted(range(len(lengths)), key=lambda k: lengths[k] < size):
        if lengths[k] >= size:
            places += [0] * (-len(places) % stride)
        starts[k] = len(places)
        places += range(offsets[k], offsets[k] + lengths[k])
    if max(lengths, default=0) >= size:
        places += [0] * (-len(places) % size)
    restore = [starts[k] + i for k, length in enumerate(lengths) for i in range(length)]

    masks = torch.zeros(size // stride, len(places))
    short: Dict[int, List[int]] = {}
    for k, length in enumerate(lengths):
        for start, end in window_spans(length, size, stride):
            first = starts[k] + start
            if end - start == size:
                masks[first % size // stride, first : first + size] = 1
            else:
                short.setdefault(end - start, []).append(first)
    groups = [torch.tensor(first)[:, None] + torch.arange(length) for length, first in sorted(short.items())[::-1]]
    index = torch.cat([group.flatten() for group in groups]) if groups else torch.zeros(0, dtype=torch.int64)
    share = 1 / (masks.sum(dim=0) + torch.bincount(index, minlength=len(places))).clamp(min=1)
    shapes = tuple(tuple(group.shape) for group in groups)
    same = places == list(range(sum(lengths)))
    return WindowPlan(
        size,
        None if same else torch.tensor(places, device=device),
        None if same else torch.tensor(restore, device=device),
        tuple((number * stride, (mask * share)[:, None].to(device)) for number, mask in enumerate(masks) if mask.any()),
        Windows(index.to(device), share[index, None].to(device), shapes) if groups else None,
    )


@lru_cache(maxsize=128)
@torch.inference_mode(False)
def concatenate_slices(
    lengths: Tuple[int, ...], size: int, stride: int, device: torch.device
) -> Tuple[Tensor, Tuple[int, ...]]:
    """Concatenate the slices of each ROI to the next sequence, the literal equation 5.

    Args:
        lengths: (L_1, …, L_K).
        size: w.
        stride: s.
        device: Device of the result.

    Returns:
        Index into the old sequence of each token of the new one, and the K lengths of the new sequence.
    """
    tokens, new_lengths, offset = [torch.zeros(0, dtype=torch.int64)], [], 0
    for length in lengths:
        spans = window_spans(length, size, stride)
        tokens += [torch.arange(offset + start, offset + end) for start, end in spans]
        new_lengths.append(sum(end - start for start, end in spans))
        offset += length
    return torch.cat(tokens).to(device), tuple(new_lengths)


class SelfAttention(nn.Module):
    """Apply multi-head self-attention to a whole sequence or inside windows.

    Queries, keys, values and the output projection are computed once per token. With windows, only the attention itself
    runs per window, and a token that lies in several windows gets the mean of their outputs.

    Args:
        embed_dims: Width of the tokens.
        num_heads: Heads.

    Raises:
        ValueError: If ``embed_dims`` is not a multiple of ``num_heads``.
    """

    def __init__(self, embed_dims: int, num_heads: int):
        super().__init__()
        if num_heads < 1 or embed_dims % num_heads:
            raise ValueError(f'embed_dims must be a multiple of num_heads, but got {embed_dims} and {num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.out = nn.Linear(embed_dims, embed_dims)

    def _attend(self, qkv: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Attend within M sequences: (M, S, 3·D) → (M, S, D). A mask (M, S) is False at keys to be ignored."""
        query, key, value = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if mask is not None:
            mask = mask[:, None, None, :]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, windows: Optional[WindowPlan] = None, mask: Optional[Tensor] = None) -> Tensor:
        """Attend to the whole sequence, or inside the windows.

        Args:
            x: (B, T, D).
            windows: Windows over the T tokens; None to attend over all of them.
            mask: (B, T) bool, False at tokens to be ignored; only without windows.

        Returns:
            (B, T, D).
        """
        if windows is None:
            return self.out(self._attend(self.qkv(x), mask))
        if windows.places is not None:
            x = x.index_select(1, windows.places)
        batch, length, dims = x.shape
        qkv = self.qkv(x)
        samples = qkv.flatten(0, 1)  # concatenated, so that the pieces of a partition are a view
        merged = None
        for start, share in windows.partitions:
            stop = len(samples) - (len(samples) - start) % windows.size
            attended = self._attend(samples[start:stop].unflatten(0, (-1, windows.size))).flatten(0, 1)
            if stop - start < len(samples):
                attended = F.pad(attended, (0, 0, start, len(samples) - stop))
            attended, share = attended.view(batch, length, dims), share.to(attended.dtype)
            merged = attended * share if merged is None else torch.addcmul(merged, attended, share)
        if merged is None:
            merged = qkv.new_zeros(batch, length, dims)
        if windows.short is not None:
            index, share, shapes = windows.short
            parts = qkv.index_select(1, index).split([count * size for count, size in shapes], dim=1)
            attended = [
                self._attend(part.reshape(-1, size, 3 * dims)).view(batch, -1, dims)
                for part, (_, size) in zip(parts, shapes)
            ]
            merged = merged.index_add(1, index, torch.cat(attended, dim=1) * share.to(merged.dtype))
        if windows.restore is not None:
            merged = merged.index_select(1, windows.restore)
        return self.out(merged)


class TransformerBlock(nn.Module):
    """Apply a pre-norm transformer block: x + Attention(LN(x)), then x + MLP(LN(x)).

    Args:
        embed_dims: Width of the tokens.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLP in multiples of ``embed_dims``.
        drop_rate: Dropout after the attention and in the MLP.
        drop_path_rate: Probability that a sample skips a branch.

    Raises:
        ValueError: If ``embed_dims`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        hidden_dims = int(mlp_ratio * embed_dims)
        self.attention_norm = nn.LayerNorm(embed_dims)
        self.attention = SelfAttention(embed_dims, num_heads)
        self.mlp_norm = nn.LayerNorm(embed_dims)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dims, hidden_dims), nn.GELU(), nn.Dropout(drop_rate), nn.Linear(hidden_dims, embed_dims)
        )
        self.drop = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, windows: Optional[WindowPlan] = None, mask: Optional[Tensor] = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); for ``windows`` and ``mask`` see :class:`SelfAttention`."""
        x = x + self.drop_path(self.drop(self.attention(self.attention_norm(x), windows, mask)))
        return x + self.drop_path(self.drop(self.mlp(self.mlp_norm(x))))
