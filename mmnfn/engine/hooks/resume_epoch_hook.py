"""A hook that makes a resumed run the continuation of the interrupted one."""

from __future__ import annotations

from typing import Any, Dict, Optional

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mmnfn.registry import HOOKS

from ..random_state import random_state, set_random_state
from .resumable_checkpoint_hook import RESUME_KEY


@HOOKS.register_module()
class ResumeEpochHook(Hook):
    """After ``--resume``, go on with the batches and the random numbers that the interrupted run would have had.

    MMEngine alone starts the epoch of the checkpoint anew, so that its first batches are seen twice, and draws other
    random numbers. With this hook, checkpoints of :class:`ResumableCheckpointHook` and as many processes as before, the
    weights after the last iteration are those of the unbroken run, bit for bit on CPUs with one or two processes. (With
    more, gradients are summed in another order in the first iteration after the resume.)

    The random numbers of training depend on the training iterations only: starting a dataloader draws none of them, nor
    does validation. Not restored are the generators of dataloader workers, which matters where transforms are random
    and ``num_workers`` is above 0, and gradients that were accumulated and not yet applied.

    Where the checkpoint is from the middle of an epoch, the batch sampler must be a
    :class:`mmnfn.datasets.SubjectBatchSampler`. With an IterBasedTrainLoop, MMEngine itself goes through the batches
    that were used, and only the random numbers are restored.
    """

    def __init__(self) -> None:
        self._resumed: Optional[Dict[str, Any]] = None
        self._random_state: Optional[Dict[str, Any]] = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember what the checkpoint says of the run that wrote it."""
        self._resumed = checkpoint.get(RESUME_KEY)

    def before_train(self, runner) -> None:
        """Compare this run with the one that is resumed.

        Raises:
            ValueError: The epochs of this run have another number of batches.
        """
        loader = runner.train_dataloader
        resumed, self._resumed = self._resumed, None
        if runner.iter == 0:  # started from weights, or from nothing
            return
        if resumed is None:
            runner.logger.warning(
                'The checkpoint was not written by ResumableCheckpointHook: it holds no state of the random numbers, '
                'so the weights will not be exactly those of an unbroken run. Set '
                "default_hooks.checkpoint.type='mmnfn.ResumableCheckpointHook' for the next run."
            )
            return
        if resumed['batches_per_epoch'] != len(loader):
            raise ValueError(
                f'--resume: the checkpoint is of a run with {resumed["batches_per_epoch"]} batches an epoch on each of '
                f'{resumed["world_size"]} process(es), but here there are {len(loader)} on each of '
                f'{get_world_size()}. Its place in the epoch and in the learning rate schedule cannot be carried over. '
                'Use as many processes and the same batch size and data as before, or start a new run from its '
                'weights with --cfg-options load_from=CHECKPOINT.'
            )
        sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
        if resumed['sampler_seed'] is not None:
            sampler.seed = resumed['sampler_seed']
        if resumed['world_size'] != get_world_size():
            runner.logger.warning(
                f'The checkpoint was written by {resumed["world_size"]} process(es) and training goes on with '
                f'{get_world_size()}: batches are made up and ordered differently, some images of this epoch may be '
                'seen twice or not at all, and the random numbers are new, so the weights will not be exactly those '
                'of an unbroken run.'
            )
            return
        self._random_state = resumed['random_states'][get_rank()]

    def before_train_epoch(self, runner) -> None:
        """Leave out the batches that the checkpoint has seen, and restore the random numbers.

        Raises:
            ValueError: The rest of the epoch cannot be determined.
        """
        # The workers' seed of an epoch is drawn from this generator, and not from torch's global one.
        seed = runner.seed + runner.epoch * get_world_size() + get_rank()
        runner.train_dataloader.generator = torch.Generator().manual_seed(seed)
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        self._restore()
        batches = len(runner.train_dataloader)
        done = runner.iter - runner.epoch * batches
        if done == 0:
            return
        skip = getattr(runner.train_dataloader.batch_sampler, 'skip', None)
        if skip is None or not 0 < done <= batches:
            raise ValueError(
                f'--resume: the checkpoint was written after iteration {runner.iter}, and epoch {runner.epoch + 1}, of '
                f'{batches} batches, cannot be continued from there. That needs the number of processes, batch size '
                "and data of the interrupted run and batch_sampler=dict(type='mmnfn.SubjectBatchSampler')."
            )
        skip(done)
        runner.logger.info(f'Resumed in mid-epoch: {done} batches of epoch {runner.epoch + 1} are left out.')

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """With an IterBasedTrainLoop, which begins by going through the batches that were used: restore here."""
        self._restore()

    def before_val(self, runner) -> None:
        """Remember the random numbers of training."""
        self._random_state = random_state()

    def after_val_epoch(self, runner, metrics: Optional[Dict[str, float]] = None) -> None:
        """Go back to them, before CheckpointHook may write a best checkpoint."""
        self._restore()

    def _restore(self) -> None:
        if self._random_state is not None:
            set_random_state(self._random_state)
            self._random_state = None
