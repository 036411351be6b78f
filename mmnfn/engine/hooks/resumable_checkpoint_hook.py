"""Checkpoints from which training goes on as if it had not been interrupted."""

from __future__ import annotations

import os.path as osp
from collections import deque
from typing import Any, Dict, Optional

from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper

from mmnfn.registry import HOOKS
from mmnfn.utils import atomic_write

from ..checkpoint import non_finite
from ..random_state import random_state

RESUME_KEY = 'mmnfn_resume'


def resume_state(runner) -> Dict[str, Any]:
    """What MMEngine leaves out of a checkpoint; every rank must call this.

    Returns:
        ``random_states`` of all ranks (:func:`mmnfn.engine.random_state.random_state`), ``world_size``,
        ``batches_per_epoch`` of a rank, ``num_workers`` and ``sampler_seed``.
    """
    loader = runner.train_dataloader
    sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
    return dict(
        random_states=all_gather_object(random_state()),
        world_size=get_world_size(),
        batches_per_epoch=len(loader),
        num_workers=loader.num_workers,
        sampler_seed=getattr(sampler, 'seed', None),
    )


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """CheckpointHook whose files survive the death of the process at any time, and hold the random numbers' state.

    Three things differ from MMEngine's: a file appears under its name when it is complete, and ``last_checkpoint``
    after it; older checkpoints are removed after the new one was written, not before; and the checkpoint has an entry
    ``mmnfn_resume`` (:func:`resume_state`), which :class:`ResumeEpochHook` uses.

    Storage other than local files (``out_dir='s3://…'`` or ``backend_args``) is written as MMEngine does.

    Args:
        *args: See :class:`mmengine.hooks.CheckpointHook`.
        **kwargs: Likewise.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._resume_state: Optional[Dict[str, Any]] = None

    def before_train(self, runner) -> None:
        """Choose how files are written."""
        if not self.backend_args and not self.file_client_args and '://' not in str(self.out_dir or runner.work_dir):
            self.backend_args = dict(backend='mmnfn_whole_file')
        super().before_train(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the entry, on rank 0; best-metric checkpoints, which cannot be resumed from, get none."""
        if self._resume_state is not None:
            checkpoint[RESUME_KEY] = self._resume_state

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        """Write the checkpoint, then ``last_checkpoint``, then remove what is too old; called on all ranks.

        Raises:
            FloatingPointError: Weights are NaN or infinite; nothing is written.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        spoiled = sum(all_gather_object(non_finite(model.state_dict())), [])
        if spoiled:
            raise FloatingPointError(
                f'{self.filename_tmpl.format(step)} is not written: {len(spoiled)} of its tensors are not finite, '
                f'{spoiled[0]} among them. Start a new run with a lower learning rate, or with optim_wrapper.clip_grad.'
            )
        kept = list(self.keep_ckpt_ids) if self.max_keep_ckpts > 0 else []
        if step not in kept:
            kept.append(step)
        surplus = kept[: -self.max_keep_ckpts] if self.max_keep_ckpts > 0 else []
        if self.max_keep_ckpts > 0:
            # The surplus is in the file too: if the process dies before it is removed, the resumed run removes it.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._resume_state = resume_state(runner)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._resume_state = None
        if is_main_process():
            with (
                atomic_write(osp.join(runner.work_dir, 'last_checkpoint')) as temporary,
                open(temporary, 'w', encoding='utf-8') as file,
            ):
                file.write(self.last_ckpt)
            for old in surplus:
                path = self._path(old)
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(kept[len(surplus) :], self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
