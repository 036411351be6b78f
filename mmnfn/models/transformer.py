"""The transformer block that the fMRI tower and the fusion share."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .windows import WindowPlan


class SelfAttention(nn.Module):
    """Multi-head self-attention over a whole sequence or inside windows.

    Queries, keys, values and the output projection are computed once per token; with windows, only the attention itself
    runs per window, and a token that lies in several windows gets the mean of their outputs.

    Args:
        embed_dims: Width of the tokens.
        num_heads: Number of heads.

    Raises:
        ValueError: If ``embed_dims`` is no multiple of ``num_heads``.
    """

    def __init__(self, embed_dims: int, num_heads: int):
        super().__init__()
        if num_heads < 1 or embed_dims % num_heads:
            raise ValueError(f'embed_dims must be a multiple of num_heads, but got {embed_dims} and {num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.out = nn.Linear(embed_dims, embed_dims)

    def _attend(self, qkv: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """(M, S, 3·D) → (M, S, D); a mask (M, S) is False at keys to be ignored."""
        query, key, value = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if mask is not None:
            mask = mask[:, None, None, :]
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, windows: Optional[WindowPlan] = None, mask: Optional[Tensor] = None) -> Tensor:
        """Attend.

        Args:
            x: (B, T, D).
            windows: Windows over the T tokens; None to attend over all of them.
            mask: (B, T) bool without windows, False at tokens that nobody may attend to.

        Returns:
            (B, T, D).
        """
        if windows is None:
            return self.out(self._attend(self.qkv(x), mask))
        if windows.places is not None:
            x = x.index_select(1, windows.places)
        batch, length, dims = x.shape
        qkv = self.qkv(x)
        samples = qkv.flatten(0, 1)  # one after another, so that the pieces of a partition are a view
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
    """Pre-norm transformer block: x + Attention(LN(x)), then x + MLP(LN(x)).

    Args:
        embed_dims: Width of the tokens.
        num_heads: Number of heads.
        mlp_ratio: Hidden width of the MLP in multiples of ``embed_dims``.
        drop_rate: Dropout after the attention and in the MLP.
        drop_path_rate: Probability that a sample skips a branch.

    Raises:
        ValueError: If ``embed_dims`` is no multiple of ``num_heads``.
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
        """(B, T, D) → (B, T, D); ``windows`` and ``mask`` as in :class:`SelfAttention`."""
        x = x + self.drop_path(self.drop(self.attention(self.attention_norm(x), windows, mask)))
        return x + self.drop_path(self.drop(self.mlp(self.mlp_norm(x))))
