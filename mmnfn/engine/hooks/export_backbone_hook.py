"""A hook that writes the backbone's weights with every checkpoint."""

from __future__ import annotations

import os
import os.path as osp
import re
from typing import Any, Dict, Optional

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import is_model_wrapper

from mmnfn.registry import HOOKS

from ..checkpoint import PREFIX, atomic_save, backbone_meta, backbone_state
from ..provenance import provenance


@HOOKS.register_module()
class ExportBackboneHook(Hook):
    """Write ``backbone_epoch_N.pth`` (or ``backbone_iter_N.pth``) and ``backbone_latest.pth`` with every checkpoint.

    The files are written to the work folder when CheckpointHook writes a checkpoint of the run (its interval,
    ``by_epoch``, ``save_begin``, ``save_last`` and ``max_keep_ckpts`` hold here too), with the weights of that
    checkpoint, so averaged ones where an EMAHook is used; and at the end of training in any case. Best-metric
    checkpoints give no export. Only rank 0 writes. What is in a file and how to load it:
    :mod:`mmnfn.engine.checkpoint`.

    Args:
        prefix: Where the backbone is in the model.
    """

    # After CheckpointHook (VERY_LOW), whatever the order in which the hooks are registered.
    priority = 'LOWEST'

    def __init__(self, prefix: str = PREFIX) -> None:
        self.prefix = prefix
        self.by_epoch = True
        self.max_keep_ckpts = -1
        self._pending: Optional[Dict[str, Any]] = None
        self._start: Dict[str, Any] = {}
        self._provenance: Dict[str, Any] = {}
        self._written = -1

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember where the weights that the run starts from come from."""
        self._start = checkpoint.get('meta', {}).get('mmnfn', {})

    def before_train(self, runner) -> None:
        """Take over CheckpointHook's settings; fail now rather than after an epoch if there is no backbone."""
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                self.by_epoch, self.max_keep_ckpts = hook.by_epoch, hook.max_keep_ckpts
        self._provenance = provenance(runner.cfg, self._start)
        model = _unwrapped(runner)
        backbone_state(model.state_dict(), self.prefix, type(model).__name__)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember the checkpoint that is being written; whether it is one of the run is known a moment later.

        Its metadata get ``mmnfn``, see :func:`mmnfn.engine.provenance.provenance`.
        """
        checkpoint['meta']['mmnfn'] = self._provenance
        self._pending = checkpoint

    def after_train_epoch(self, runner) -> None:
        """Export what CheckpointHook wrote at the end of this epoch."""
        self._flush(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Export what CheckpointHook wrote after this iteration."""
        self._flush(runner)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Forget the best-metric checkpoint."""
        self._pending = None

    def after_train(self, runner) -> None:
        """Export the final weights if the last checkpoint is older."""
        if self._written == (runner.epoch if self.by_epoch else runner.iter):
            return
        checkpoint = dict(state_dict=_unwrapped(runner).state_dict(), meta=dict(epoch=runner.epoch, iter=runner.iter))
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.before_save_checkpoint(runner, checkpoint)
        self._pending = checkpoint
        self._flush(runner)

    def _flush(self, runner) -> None:
        checkpoint, self._pending = self._pending, None
        if checkpoint is None or not is_main_process():
            return
        epoch, iteration = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
        self._written = epoch if self.by_epoch else iteration
        path = osp.join(runner.work_dir, self._name(self._written))
        content = dict(
            state_dict=backbone_state(checkpoint['state_dict'], self.prefix),
            meta=backbone_meta(runner.cfg, epoch=epoch, iter=iteration, seed=runner.seed, **self._provenance),
        )
        atomic_save(content, path, osp.join(runner.work_dir, 'backbone_latest.pth'))
        runner.logger.info(f'Backbone exported to {path}')
        if self.max_keep_ckpts > 0:
            self._remove_old(runner.work_dir)

    def _name(self, step: Any) -> str:
        return f'backbone_{"epoch" if self.by_epoch else "iter"}_{step}.pth'

    def _remove_old(self, folder: str) -> None:
        """Keep the newest exports up to this step, also those from before a resume; later ones are of another run."""
        matches = filter(None, map(re.compile(self._name(r'(\d+)')).fullmatch, os.listdir(folder)))
        steps = sorted(int(match[1]) for match in matches if int(match[1]) <= self._written)
        for old in steps[: -self.max_keep_ckpts]:
            os.remove(osp.join(folder, self._name(old)))


def _unwrapped(runner):
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
