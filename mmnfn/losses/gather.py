"""All-gather with exact gradients for batches that may differ in size from rank to rank."""

from __future__ import annotations

from typing import Optional, Sequence, Tuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def gather_sizes(size: int, rank: int, world_size: int, device: torch.device) -> Tuple[int, ...]:
    """Gather the batch sizes of all ranks.

    Args:
        size: Batch size of this rank.
        rank: This process's rank.
        world_size: Number of processes; with 1 nothing is communicated.
        device: Device for the communication.

    Returns:
        The ``world_size`` batch sizes in rank order.

    Raises:
        ValueError: If ``rank`` is not in ``[0, world_size)``.
    """
    if not 0 <= rank < world_size:
        raise ValueError(
            f'rank must be in [0, world_size), but got rank={rank} with world_size={world_size}; '
            'pass the values of the same process group'
        )
    if world_size == 1:
        return (size,)
    own = torch.tensor([size], dtype=torch.int64, device=device)
    sizes = [torch.empty_like(own) for _ in range(world_size)]
    dist.all_gather(sizes, own)
    return tuple(int(value) for value in torch.cat(sizes).tolist())


class _AllGather(torch.autograd.Function):
    """Concatenate the ranks' tensors; backward sums the gradients of all ranks and returns this rank's slice."""

    @staticmethod
    def forward(ctx, tensor: Tensor, rank: int, sizes: Tuple[int, ...]) -> Tensor:
        ctx.rank, ctx.sizes = rank, sizes
        longest = max(sizes)
        padding = [0, 0] * (tensor.dim() - 1) + [0, longest - tensor.shape[0]]
        own = F.pad(tensor, padding).contiguous()
        parts = [torch.empty_like(own) for _ in sizes]
        dist.all_gather(parts, own)
        return torch.cat([part[:size] for part, size in zip(parts, sizes)])

    @staticmethod
    def backward(ctx, grad: Tensor):
        # Autograd may still need the incoming gradient, and all_reduce writes in place.
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        start = sum(ctx.sizes[: ctx.rank])
        return grad[start : start + ctx.sizes[ctx.rank]], None, None


def gather_features(tensor: Tensor, rank: int, world_size: int, sizes: Optional[Sequence[int]] = None) -> Tensor:
    """Concatenate a tensor of all ranks along the batch axis, differentiably.

    Every rank must compute the *same* global loss from the result. The backward pass then sums the gradients of all
    ranks and takes the local slice, which is ``world_size`` times the gradient of the global loss.
    :class:`~torch.nn.parallel.DistributedDataParallel` averages over ranks, which removes the factor, so parameter
    gradients are exactly those of one process with the whole batch. (A gather that only returns its local slice, like
    MMPretrain's ``GatherLayer``, leaves them ``world_size`` times too small.)

    Args:
        tensor: (n, ...) of this rank; n may differ between ranks, the other axes may not. Integer tensors have no
            gradient.
        rank: This process's rank.
        world_size: Number of processes; with 1 the tensor itself is returned.
        sizes: Batch sizes of all ranks from :func:`gather_sizes`; None gathers them first.

    Returns:
        (sum of n, ...), rank 0 first.

    Raises:
        ValueError: If ``rank`` is not in ``[0, world_size)`` or ``sizes`` contradicts the arguments.
    """
    if sizes is None:
        sizes = gather_sizes(tensor.shape[0], rank, world_size, tensor.device)
    if len(sizes) != world_size or not 0 <= rank < world_size or sizes[rank] != tensor.shape[0]:
        raise ValueError(
            f'sizes must hold one batch size for each of {world_size} ranks, with {tensor.shape[0]} at '
            f'rank {rank}, but got {tuple(sizes)}; use gather_sizes'
        )
    if world_size == 1:
        return tensor
    return _AllGather.apply(tensor, rank, tuple(sizes))
