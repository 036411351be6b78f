"""Which tokens each sliding window of equation 4 covers."""

from __future__ import annotations

from functools import lru_cache
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """Windows that are gathered, one after another, those of the same length together.

    Attributes:
        index: (N,) int64, the place of the layout at each place of the windows.
        share: (N, 1) float32, one over the number of windows that hold the token.
        shapes: (W, w) for each length w: that many windows have it; N is the sum of W·w.
    """

    index: Tensor
    share: Tensor
    shapes: Tuple[Tuple[int, int], ...]


class WindowPlan(NamedTuple):
    """Windows over a sequence of ROIs, most of them without a copy.

    In a layout in which each ROI begins at a multiple of the stride, the full windows are w / s partitions of the
    sequence into pieces of w places, each partition beginning s places after the one before: views of it, and of the
    samples of a batch one after another, if the layout's length is a multiple of w. Pieces that are no windows, because
    they reach over the end of an ROI or a sample, are computed and count nothing.

    Attributes:
        size: w.
        places: (T',) int64, the token at each place of the layout, any token at places that are none; None if the
            layout is the sequence itself.
        restore: (T,) int64, the place of each token in the layout; None likewise.
        partitions: Pairs of the first place of a partition and (T', 1) float32, one over the number of windows that
            hold the token where the partition's piece is a window, else 0.
        short: The windows that have fewer than w tokens, if there are any.
    """

    size: int
    places: Optional[Tensor]
    restore: Optional[Tensor]
    partitions: Tuple[Tuple[int, Tensor], ...]
    short: Optional[Windows]


def window_spans(length: int, size: int, stride: int) -> List[Tuple[int, int]]:
    """Slices (start, end) of equation 4 over one ROI.

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
@torch.inference_mode(False)  # plans are cached, and an inference tensor could not serve a later training step
def sliding_plan(lengths: Tuple[int, ...], size: int, stride: int, device: torch.device) -> WindowPlan:
    """Plan the windows of all ROIs of a packed sequence; no window holds tokens of two ROIs.

    Args:
        lengths: (L_1, …, L_K), the ROIs lie one after another in the sequence.
        size: w, a multiple of ``stride``.
        stride: s.
        device: Where the plan is needed.

    Returns:
        The plan, cached.
    """
    offsets = [sum(lengths[:k]) for k in range(len(lengths))]
    places: List[int] = []
    starts: Dict[int, int] = {}  # of each ROI in the layout; ROIs without a full window come last
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
def laid_slices(
    lengths: Tuple[int, ...], size: int, stride: int, device: torch.device
) -> Tuple[Tensor, Tuple[int, ...]]:
    """Lay the slices of each ROI one after another, as the next sequence: literal equation 5.

    Args:
        lengths: (L_1, …, L_K).
        size: w.
        stride: s.
        device: Where the result is needed.

    Returns:
        The token of the old sequence at each place of the new one, and the K lengths of the new one, of which all
        slices but the last of an ROI have w tokens.
    """
    tokens, new_lengths, offset = [torch.zeros(0, dtype=torch.int64)], [], 0
    for length in lengths:
        spans = window_spans(length, size, stride)
        tokens += [torch.arange(offset + start, offset + end) for start, end in spans]
        new_lengths.append(sum(end - start for start, end in spans))
        offset += length
    return torch.cat(tokens).to(device), tuple(new_lengths)
