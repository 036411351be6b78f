"""Which tokens each sliding window of equation 4 covers."""

from __future__ import annotations

from functools import lru_cache
from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """Windows over a sequence, one after another, those of the same length together.

    Attributes:
        index: (N,) int64, the token at each place of the windows.
        share: (N, 1) float32, one over the number of windows of the whole sequence that hold the token.
        shapes: (W, w) for each length w: that many windows have it; N is the sum of W·w.
    """

    index: Tensor
    share: Tensor
    shapes: Tuple[Tuple[int, int], ...]


# All windows over a sequence: the longest ones, and all others if there are any.
WindowPlan = Tuple[Windows, ...]


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


@torch.inference_mode(False)  # plans are cached, and an inference tensor could not serve a later training step
def plan_from_spans(spans: List[Tuple[int, int]], device: torch.device) -> WindowPlan:
    """Plan of windows given as slices (start, end) of the packed sequence.

    Attention in windows of one length needs neither padding nor a mask, which takes less time, and on GPUs the fastest
    kernel; only the last window of an ROI can be short, so that there are few lengths. Most windows are of the longest,
    and are kept apart because the others have to be copied.
    """
    starts, ends = torch.tensor(spans, device=device).t()
    sizes = ends - starts
    lengths = sizes.unique().tolist()[::-1]
    indices = [starts[sizes == length, None] + torch.arange(length, device=device) for length in lengths]
    holders = torch.bincount(torch.cat([index.flatten() for index in indices]))
    plan = []
    for part in (indices[:1], indices[1:]):
        if part:
            index = torch.cat([index.flatten() for index in part])
            shapes = tuple(tuple(index.shape) for index in part)
            plan.append(Windows(index, 1 / holders[index, None].to(torch.float32), shapes))
    return tuple(plan)


@lru_cache(maxsize=128)
def sliding_plan(lengths: Tuple[int, ...], size: int, stride: int, device: torch.device) -> WindowPlan:
    """Windows of all ROIs of a packed sequence; no window holds tokens of two ROIs.

    Args:
        lengths: (L_1, …, L_K), the ROIs lie one after another in the sequence.
        size: w.
        stride: s.
        device: Where the plan is needed.

    Returns:
        The plan, cached.
    """
    spans, offset = [], 0
    for length in lengths:
        spans += [(offset + start, offset + end) for start, end in window_spans(length, size, stride)]
        offset += length
    return plan_from_spans(spans, device)


@lru_cache(maxsize=128)
@torch.inference_mode(False)
def slice_plan(
    lengths: Tuple[int, ...], size: int, stride: int, device: torch.device
) -> Tuple[Tensor, Tuple[int, ...], WindowPlan]:
    """Literal equation 5: the slices of each ROI, laid one after another, are the next sequence.

    Args:
        lengths: (L_1, …, L_K).
        size: w.
        stride: s.
        device: Where the plan is needed.

    Returns:
        The token of the old sequence at each place of the new one, the K lengths of the new one, and the plan by which
        each slice of the new sequence attends to itself alone.
    """
    tokens, new_lengths, spans, offset = [], [], [], 0
    for length in lengths:
        start_of_roi = spans[-1][1] if spans else 0
        for start, end in window_spans(length, size, stride):
            begin = spans[-1][1] if spans else 0
            spans.append((begin, begin + end - start))
            tokens.append(torch.arange(offset + start, offset + end, device=device))
        new_lengths.append((spans[-1][1] if spans else 0) - start_of_roi)
        offset += length
    return torch.cat(tokens), tuple(new_lengths), plan_from_spans(spans, device)


@lru_cache(maxsize=128)
@torch.inference_mode(False)
def pair_plan(lengths: Tuple[int, ...], device: torch.device) -> Tuple[Tensor, Tensor, Tuple[int, ...]]:
    """Averaging neighbouring tokens of a ROI in pairs; an odd last token stays alone.

    Args:
        lengths: (L_1, …, L_K).
        device: Where the plan is needed.

    Returns:
        (T,) int64 place of each token in the new sequence, (T,) float32 weight of the token there, and the K new
        lengths ⌈L_k / 2⌉.
    """
    targets, offset, new_lengths = [], 0, []
    for length in lengths:
        targets.append(offset + torch.arange(length, device=device) // 2)
        new_lengths.append((length + 1) // 2)
        offset += new_lengths[-1]
    target = torch.cat(targets)
    return target, 1 / torch.bincount(target)[target].to(torch.float32), tuple(new_lengths)
