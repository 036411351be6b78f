"""A hook that stops training at a loss or a gradient that is NaN or infinite."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor

from mmnfn.registry import HOOKS


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop all processes at the first loss or gradient that is not finite, before it is in a checkpoint.

    The error names the iteration, the loss terms of each process, and the subject or the images. ``--resume`` from the
    last checkpoint gets to the same iteration again, with the same batch and random numbers.

    Where gradients are clipped by their norm, MMEngine has read the norm already, and an accelerator is not waited for;
    elsewhere the losses are read in each iteration. Losses with finite gradients are read every ``interval``
    iterations. Infinite gradients are left to a GradScaler (``--amp-dtype float16``), which finds its scale by them.

    Args:
        interval: Iterations between two looks at the losses where the norm of the gradient is known.
    """

    priority = 'ABOVE_NORMAL'  # before checkpoints are written

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: Any = None, outputs: Optional[Dict[str, Any]] = None
    ) -> None:
        """Look at the norm of the gradient, or at the losses.

        Raises:
            FloatingPointError: On all processes, if one of them found a loss or gradient that is not finite.
        """
        losses = {name: torch.as_tensor(value) for name, value in (outputs or {}).items() if 'loss' in name}
        wrapper, bad, interval = runner.optim_wrapper, False, self.interval
        scaler, norms = getattr(wrapper, 'loss_scaler', None), None
        if getattr(wrapper, 'clip_grad_kwargs', None):  # there is no such history where they are clipped by value
            norms = runner.message_hub.log_scalars.get('train/grad_norm')
        if scaler is None or not scaler.is_enabled():
            bad = norms is not None and not math.isfinite(norms.current())
            interval = 1 if norms is None else interval
        if losses and (bad or self.every_n_train_iters(runner, interval)):
            found = ~torch.stack([torch.isfinite(value).all() for value in losses.values()]).all()
            flag = (found | bad).int()
            all_reduce(flag, op='max')
            if flag.item():
                self._stop(runner, {name: float(value) for name, value in losses.items()}, data_batch)

    @staticmethod
    def _stop(runner, losses: Dict[str, float], batch: Any) -> None:
        ranks = all_gather_object(dict(losses=losses, where=_source(batch)))
        parts = []
        for number, rank in enumerate(ranks):
            terms = ', '.join(f'{name}={value:.4g}' for name, value in rank['losses'].items())
            parts.append(f'rank {number}: {terms}{rank["where"]}')
        finite = all(math.isfinite(value) for rank in ranks for value in rank['losses'].values())
        epoch = f' of epoch {runner.epoch + 1}' if isinstance(runner.train_loop, EpochBasedTrainLoop) else ''
        rate = max(max(values) for values in runner.optim_wrapper.get_lr().values())
        message = (
            f'{"Gradient" if finite else "Loss"} not finite at iteration {runner.iter + 1}{epoch}: {"; ".join(parts)}. '
            f'Learning rate {rate:.4g}. No checkpoint has it. Lower the learning rate, or set optim_wrapper.clip_grad.'
        )
        if is_main_process():
            runner.logger.error(message)
        barrier()  # a launcher ends the other processes as soon as one of them fails
        raise FloatingPointError(message)


def _source(batch: Any) -> str:
    """Name the subjects or the image files of a batch, and what in it is not finite."""
    if not isinstance(batch, dict):
        return ''
    geometries = batch.get('geometry')
    geometries = geometries if isinstance(geometries, list) else [geometries]
    names: List[str] = [geometry.subject for geometry in geometries if geometry is not None]
    names += [str(sample.img_path) for sample in batch.get('data_samples') or [] if hasattr(sample, 'img_path')]
    spoiled = [
        name
        for name, value in batch.items()
        for part in (value if isinstance(value, list) else [value])
        if isinstance(part, Tensor) and part.is_floating_point() and not torch.isfinite(part).all()
    ]
    return f' ({", ".join(names)})' + (f', batch not finite in {", ".join(spoiled)}' if spoiled else '')
