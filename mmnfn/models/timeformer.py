"""Multi-scale fMRI Timeformer, equations 4 and 5."""

from __future__ import annotations

from typing import List, Sequence, Tuple

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .transformer import TransformerBlock, concatenate_slices, sliding_plan

MERGES = ('overlap', 'concat')


class MultiScaleFMRITimeformer(nn.Module):
    """Run h transformer layers whose attention stays inside sliding windows of one ROI, equations 4 and 5.

    Slices q_i^k = r^k[i·s : i·s + w] are taken until the whole r^k is covered; the last one may be shorter, and no
    slice reaches from one ROI into another. Each layer widens what a token has seen, hence "multi-scale". The paper
    does not say how the overlapping slices become the input of the next layer:

    - ``merge='overlap'``: a token that lies in several slices gets the mean of their attention outputs. The length does
      not change, and projections and MLP run once per token.
    - ``merge='concat'``: the literal form. Each slice goes through the whole block on its own, and the concatenated
      slices are the next layer's sequence, which nearly doubles its length (w = 2s).

    All ROIs of a batch go through a layer at once, packed one after another without padding. Attention runs w / s times
    for the full slices of all ROIs and samples, and once for each length of a shorter last slice.

    Args:
        embed_dims: D, width of the tokens.
        num_heads: Attention heads.
        num_layers: h.
        window_size: w, in tokens.
        window_stride: s, in tokens.
        merge: ``'overlap'`` or ``'concat'``.
        mlp_ratio: Hidden width of the MLPs in multiples of D.
        drop_rate: Dropout.
        drop_path_rate: Stochastic depth of the last layer; it grows linearly from 0 at the first.
        with_cp: Recompute the layers in the backward pass to save memory.

    Raises:
        ValueError: If ``merge`` is unknown, a size is below 1, the window is not a multiple of the stride, or D is not
            a multiple of ``num_heads``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_layers: int = 2,
        window_size: int = 64,
        window_stride: int = 32,
        merge: str = 'overlap',
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
    ):
        super().__init__()
        if merge not in MERGES:
            raise ValueError(f'merge must be one of {MERGES}, but got {merge!r}')
        if num_layers < 1:
            raise ValueError(f'num_layers must be at least 1, but got {num_layers}')
        if not 1 <= window_stride <= window_size or window_size % window_stride:
            raise ValueError(
                'window_stride must be at least 1, and window_size a multiple of it, but got '
                f'window_stride={window_stride} and window_size={window_size}'
            )
        self.window_size = window_size
        self.window_stride = window_stride
        self.merge = merge
        self.with_cp = with_cp
        self.layers = nn.ModuleList(
            TransformerBlock(embed_dims, num_heads, mlp_ratio, drop_rate, drop_path_rate * i / max(num_layers - 1, 1))
            for i in range(num_layers)
        )

    def forward(self, x: Tensor, lengths: Sequence[int]) -> List[Tuple[Tensor, Tuple[int, ...]]]:
        """Run the layers.

        Args:
            x: (B, T, D) tokens r^k of all ROIs one after another, T = sum(lengths).
            lengths: (L_1, …, L_K); 0 for an absent ROI.

        Returns:
            The output (B, T', D) of each layer and its K lengths; T' = T with ``'overlap'``.

        Raises:
            ValueError: If ``lengths`` does not add up to T.
        """
        lengths = tuple(lengths)
        if sum(lengths) != x.shape[1] or x.shape[1] == 0:
            raise ValueError(
                f'lengths must add up to the {x.shape[1]} tokens of x, and to at least 1, but got {lengths}'
            )
        outputs = []
        stride = self.window_stride
        for layer in self.layers:
            if self.merge == 'concat':
                tokens, lengths = concatenate_slices(lengths, self.window_size, self.window_stride, x.device)
                x, stride = x.index_select(1, tokens), self.window_size  # each slice attends only to itself
            plan = sliding_plan(lengths, self.window_size, stride, x.device)
            if self.with_cp and x.requires_grad:
                x = checkpoint(layer, x, plan, use_reentrant=False)
            else:
                x = layer(x, windows=plan)
            outputs.append((x, lengths))
        return outputs
