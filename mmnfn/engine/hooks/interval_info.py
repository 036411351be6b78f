"""A hook that waits for an accelerator only where something is logged."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook

from mmnfn.registry import HOOKS


@HOOKS.register_module()
class IntervalInfoHook(RuntimeInfoHook):
    """Hand what the model logs to the message hub only when LoggerHook is about to read it.

    MMEngine's RuntimeInfoHook reads every value in every iteration, and the processor waits for the accelerator as
    often. The history in the message hub, and so what is logged, is the same.
    """

    def __init__(self) -> None:
        self._outputs: List[Dict[str, Any]] = []

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: Optional[dict] = None) -> None:
        """Keep the values, and hand them over at the interval of LoggerHook and at the end of an epoch."""
        self._outputs.append(dict(outputs or {}))
        interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 1)
        if self.every_n_inner_iters(batch_idx, interval) or self.end_of_epoch(runner.train_dataloader, batch_idx):
            self._hand_over(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Hand them over to the history that the checkpoint holds."""
        self._hand_over(runner)
        checkpoint['message_hub'] = runner.message_hub.state_dict()

    def _hand_over(self, runner) -> None:
        entries = [entry for outputs in self._outputs for entry in outputs.items()]
        self._outputs = []
        if entries:
            values = torch.stack([torch.as_tensor(value).detach().double().reshape(()) for _, value in entries])
            for (name, _), value in zip(entries, values.tolist()):
                runner.message_hub.update_scalar(f'train/{name}', value)
