"""A hook that stops training before a step with a loss or a gradient that is NaN or infinite."""

from __future__ import annotations

import math
import os.path as osp
from typing import Any, Dict, List, Optional

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor, nn

from mmnfn.registry import HOOKS

from ..checkpoint import atomic_save, non_finite
from ..random_state import random_state

# A GradScaler halves its scale, 65536 at first, with every gradient that is not finite, and leaves the step out. Below
# this the scale is not the reason any more, and no step would ever be made again.
SMALLEST_SCALE = 1e-6
INTERVAL = 50


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop all ranks at the first loss or gradient that is not finite, and keep what is needed to see it again.

    Gradients, which a loss that is not finite spoils, are looked at before the optimizer's step, so the weights are
    still those that gave them. They are the same on all ranks; on an accelerator this waits for it once where gradients
    are not clipped, and where they are MMEngine has waited for their norm already. Losses whose gradients are finite
    all the same are looked at in every 50th iteration. Gradients that a GradScaler (``--amp``) leaves out are not
    looked at, until its scale has come to nothing.

    Rank 0 then writes ``nonfinite_iter_N.pth`` to the work folder, N being the iteration, counted from 1 since the
    beginning of training, and every rank raises a FloatingPointError that names the iteration, the loss terms, the
    subject or the images, the learning rate and what else is not finite. ``last_checkpoint`` is left as it is.

    The file (``torch.load(path, weights_only=False)``) holds ``state_dict``, ``optimizer`` and ``param_schedulers`` as
    a checkpoint has them, ``meta`` (``epoch`` and ``iter`` as they are before this iteration, ``cfg``, ``message``),
    and ``ranks``, a list with a dict for each rank: ``batch`` as the dataloader gave it, ``random_state`` before the
    forward pass (:func:`mmnfn.engine.random_state.set_random_state`) and ``losses``. To see it again with one process::

        set_random_state(rank['random_state'])
        losses = model(**model.data_preprocessor(rank['batch'], training=True), mode='loss')
        model.parse_losses(losses)[0].backward()
    """

    # Last before the forward pass, so that the random numbers are those of the forward pass.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._batch: Any = None
        self._random_state: Optional[Dict[str, Any]] = None
        self._losses: Dict[str, Tensor] = {}
        self._looked = False
        self._handles: List[Any] = []

    def before_train(self, runner) -> None:
        """Keep the losses that the model returns in a training iteration, and look at them before the step."""

        def keep(model: nn.Module, inputs: Any, losses: Any) -> None:
            if self._random_state is not None and isinstance(losses, dict):
                self._losses.update({name: _detached(value) for name, value in losses.items() if 'loss' in name})

        def look(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self._looked = True
            if getattr(optimizer, 'found_inf', None) is not None:  # a fused one, which leaves the step out itself
                return
            if wrapper.clip_grad_kwargs and wrapper.clip_func is nn.utils.clip_grad_norm_:
                norm = runner.message_hub.get_scalar(f'train/{wrapper.grad_name}').current()
            else:
                norm = _norm(optimizer)
            if not math.isfinite(norm):
                self._stop(runner)

        wrapper = runner.optim_wrapper
        model, optimizer = _unwrapped(runner.model), wrapper.optimizer
        self._handles = [model.register_forward_hook(keep), optimizer.register_step_pre_hook(look)]

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Keep the batch and the random numbers of this iteration."""
        self._batch, self._random_state = data_batch, random_state()
        self._losses, self._looked = {}, False

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Look at the losses from time to time, and where there was no step.

        There is none where gradients are accumulated or a GradScaler left it out.
        """
        bad = False
        if not self._looked:
            scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
            if scaler is None:
                bad = not math.isfinite(_norm(runner.optim_wrapper.optimizer))
            else:
                bad = scaler.get_scale() < SMALLEST_SCALE
        if not self._looked or self.every_n_train_iters(runner, INTERVAL):
            bad |= any(not torch.isfinite(value).all() for value in self._losses.values())
            flag = torch.tensor(int(bad), device=next(runner.model.parameters()).device)
            all_reduce(flag, op='max')
            if flag.item():
                self._stop(runner)
        self._batch = self._random_state = None

    def after_train(self, runner) -> None:
        """Leave model and optimizer as they were."""
        for handle in self._handles:
            handle.remove()

    def _stop(self, runner) -> None:
        """Write the file and raise, on all ranks."""
        ranks = all_gather_object(
            dict(
                batch=_on_cpu(self._batch),
                random_state=self._random_state,
                losses={name: value.sum().item() for name, value in self._losses.items()},
                not_finite=_not_finite_entries(self._batch),
            )
        )
        message = self._message(runner, ranks)
        path = osp.join(runner.work_dir, f'nonfinite_iter_{runner.iter + 1}.pth')
        written = f'Model and optimizer before its step, and the batch, are in {path}.'
        if is_main_process():
            try:
                atomic_save(_state(runner, ranks, message), path)
            except OSError as error:
                written = f'{path} is missing: {error}.'
            runner.logger.error(f'{message} {written}')
        barrier()  # a launcher ends the other ranks as soon as one of them fails
        raise FloatingPointError(f'{message} {written}')

    @staticmethod
    def _message(runner, ranks: List[Dict[str, Any]]) -> str:
        parts = []
        for number, rank in enumerate(ranks):
            losses = ', '.join(f'{name}={value:.4g}' for name, value in rank['losses'].items())
            source = _source(rank['batch'])
            parts.append(f'rank {number}: {losses}' + (f' ({source})' if source else ''))
            if rank['not_finite']:
                parts[-1] += f', batch not finite in {", ".join(rank["not_finite"])}'
        model = _unwrapped(runner.model)
        losses = torch.tensor([value for rank in ranks for value in rank['losses'].values()])
        what = 'Gradient' if torch.isfinite(losses).all() else 'Loss'
        epoch = f' of epoch {runner.epoch + 1}' if isinstance(runner.train_loop, EpochBasedTrainLoop) else ''
        message = f'{what} not finite at iteration {runner.iter + 1}{epoch}: {"; ".join(parts)}.'
        rates = {name: max(values) for name, values in runner.optim_wrapper.get_lr().items()}
        message += ' Learning rate ' + ', '.join(f'{rate:.4g}' for rate in rates.values()) + '.'
        spoiled = non_finite(dict(model.named_parameters()))
        if spoiled:
            message += f' {len(spoiled)} parameters were not finite already, {spoiled[0]} among them.'
        return message


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _detached(value: Any) -> Tensor:
    """A loss term, which may be a list of tensors, as one flat tensor."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return torch.cat([v.detach().float().flatten() for v in values])


def _norm(optimizer: torch.optim.Optimizer) -> float:
    gradients = [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
    return float(torch.stack(torch._foreach_norm(gradients)).norm()) if gradients else 0.0


def _source(batch: Any) -> str:
    """Name the subjects or the image files of a batch."""
    if not isinstance(batch, dict):
        return ''
    samples = batch.get('data_samples') or []
    paths = [str(sample.img_path) for sample in samples if hasattr(sample, 'img_path')]
    geometries = batch.get('geometry')
    geometries = geometries if isinstance(geometries, list) else [geometries]
    return ', '.join(paths or [geometry.subject for geometry in geometries if geometry is not None])


def _not_finite_entries(batch: Any) -> List[str]:
    """Names of the entries of a batch that hold NaN or infinite numbers."""
    items = batch.items() if isinstance(batch, dict) else ()
    return [
        name
        for name, value in items
        for part in (value if isinstance(value, list) else [value])
        if isinstance(part, Tensor) and part.is_floating_point() and not torch.isfinite(part).all()
    ]


def _on_cpu(value: Any) -> Any:
    """A batch with its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(child) for key, child in value.items()}
    if isinstance(value, tuple) and hasattr(value, '_fields'):
        return type(value)(*map(_on_cpu, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(_on_cpu, value))
    return value


def _state(runner, ranks: List[Dict[str, Any]], message: str) -> Dict[str, Any]:
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    return dict(
        meta=dict(epoch=runner.epoch, iter=runner.iter, cfg=runner.cfg.pretty_text, message=message),
        state_dict=_unwrapped(runner.model).state_dict(),
        optimizer=runner.optim_wrapper.state_dict(),
        param_schedulers=[scheduler.state_dict() for scheduler in schedulers],
        ranks=ranks,
    )
