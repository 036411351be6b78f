"""A hook that makes a resumed run the continuation of the interrupted one."""

from __future__ import annotations

from itertools import repeat
from typing import Any, Callable, Dict, Iterator, Optional

import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from mmnfn.registry import HOOKS

from ..random_state import random_state, set_random_state
from .resumable_checkpoint_hook import RESUME_KEY


class ResumeError(ValueError):
    """A run cannot be the continuation of the one that is resumed."""


@HOOKS.register_module()
class ResumeEpochHook(Hook):
    """After ``--resume``, go on with the batches and the random numbers that the interrupted run would have had.

    MMEngine alone starts the epoch of the checkpoint anew, so that its first batches are seen twice, and draws other
    random numbers. With this hook, checkpoints of :class:`ResumableCheckpointHook` and as many processes as before, the
    weights after the last iteration are those of the unbroken run, bit for bit on CPUs with one or two processes. (With
    more, gradients are summed in another order in the first iteration after the resume.)

    The random numbers of training depend on the training iterations only: starting a dataloader draws none of them, nor
    does validation. Dataloader workers start anew in each epoch, with seeds of that epoch. Not restored are gradients
    that were accumulated and not yet applied.

    In the middle of an epoch, the batches that were used are left out without being read where the batch sampler is a
    :class:`mmnfn.datasets.SubjectBatchSampler` and there are no workers; else they are read and thrown away, which
    brings the workers' random numbers to where they were. With an IterBasedTrainLoop MMEngine itself does the latter.
    """

    def __init__(self) -> None:
        self._resumed: Optional[Dict[str, Any]] = None
        self._random_state: Optional[Dict[str, Any]] = None
        self._loader: Optional[DataLoader] = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember what the checkpoint says of the run that wrote it.

        Raises:
            ResumeError: Training is to go on, and the checkpoint has no state of the optimizer or of the schedules.
        """
        self._resumed = checkpoint.get(RESUME_KEY)
        done = checkpoint.get('meta', {}).get('iter')
        parts = ('message_hub', 'optimizer', *(('param_schedulers',) if runner.param_schedulers else ()))
        missing = [part for part in parts if part not in checkpoint]
        if not runner._resume or not missing or (missing != ['message_hub'] and done and done >= runner.max_iters):
            return
        raise ResumeError(
            f'--resume: {runner._load_from} has weights, but no {", ".join(missing)}, so that training would not go on '
            'but begin with them: it is a best or an exported checkpoint, or one of save_optimizer=False. Give a '
            'training checkpoint (epoch_N.pth, iter_N.pth), or start a new run with --cfg-options load_from=CHECKPOINT.'
        )

    def before_train(self, runner) -> None:
        """Compare this run with the one that is resumed.

        Raises:
            ResumeError: The epochs of this run have another number of batches.
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
            raise ResumeError(
                f'--resume: the checkpoint is of a run with {resumed["batches_per_epoch"]} batches an epoch on each of '
                f'{resumed["world_size"]} process(es), but here there are {len(loader)} on each of '
                f'{get_world_size()}. Its place in the epoch and in the learning rate schedule cannot be carried over. '
                'Use as many processes and the same batch size and data as before, or start a new run from its '
                'weights with --cfg-options load_from=CHECKPOINT.'
            )
        sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
        if resumed['sampler_seed'] is not None:
            if not isinstance(runner.train_loop, EpochBasedTrainLoop) and loader.num_workers > 0:
                self._compare_seeds(runner, resumed['sampler_seed'], sampler.seed)
            sampler.seed = resumed['sampler_seed']
        if resumed.get('num_workers', loader.num_workers) != loader.num_workers:
            runner.logger.warning(
                f'The checkpoint is of a run with {resumed["num_workers"]} dataloader workers, and now there are '
                f'{loader.num_workers}: random transforms will differ. Set train_dataloader.num_workers='
                f'{resumed["num_workers"]} for the weights of the unbroken run.'
            )
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
            ResumeError: The rest of the epoch cannot be determined.
        """
        loop = runner.train_loop
        if self._loader is not None:  # of an epoch that began in its middle
            loop.dataloader, self._loader = self._loader, None
        loader = loop.dataloader
        # The workers' seed of an epoch is drawn from this generator, and not from torch's global one.
        seed = runner.seed + runner.epoch * get_world_size() + get_rank()
        loader.generator = torch.Generator().manual_seed(seed)
        if not isinstance(loop, EpochBasedTrainLoop):
            if runner.iter > 0:
                batches, unread = loop.dataloader_iterator, loader.num_workers == 0
                if runner.iter >= loop.max_iters:  # nothing is left to train, so nothing need be read
                    batches, unread = repeat(None), False
                loop.dataloader_iterator = _Rest(batches, runner.iter, self._restore, unread)
            return
        if loader.num_workers > 0:
            if getattr(loader.worker_init_fn, 'func', None) is worker_init_fn:
                loader.worker_init_fn = None  # MMEngine's gives all epochs the same seeds, torch those drawn above
            loader._iterator = None  # workers that live on would have random numbers of the epochs before
        self._restore()
        batches = len(loader)
        done = runner.iter - runner.epoch * batches
        if done == 0:
            return
        if not 0 < done <= batches:
            raise ResumeError(
                f'--resume: the checkpoint was written after iteration {runner.iter}, and epoch {runner.epoch + 1}, of '
                f'{batches} batches, cannot be continued from there. That needs the number of processes, batch size '
                'and data of the interrupted run.'
            )
        skip = getattr(loader.batch_sampler, 'skip', None)
        if skip is not None and loader.num_workers == 0:
            skip(done)
        else:
            state, self._loader = random_state(), loader
            loop.dataloader = _RestOfEpoch(loader, done, lambda: set_random_state(state))
        runner.logger.info(f'Resumed in mid-epoch: {done} batches of epoch {runner.epoch + 1} are left out.')

    def before_val(self, runner) -> None:
        """Remember the random numbers of training."""
        self._random_state = random_state()

    def after_val_epoch(self, runner, metrics: Optional[Dict[str, float]] = None) -> None:
        """Go back to them, before CheckpointHook may write a best checkpoint."""
        self._restore()

    @staticmethod
    def _compare_seeds(runner, of_checkpoint: int, here: int) -> None:
        """Workers have begun to read by the time the checkpoint is: their seed cannot be changed any more."""
        if of_checkpoint != here:
            runner.logger.warning(
                f'The checkpoint is of a run with seed {of_checkpoint}, and this one has {here}: pictures will come in '
                f'another order. Set randomness.seed={of_checkpoint} for the weights of the unbroken run.'
            )

    def _restore(self) -> None:
        if self._random_state is not None:
            set_random_state(self._random_state)
            self._random_state = None


class _Rest:
    """Batches of a loop that goes through those that were used before it trains.

    Args:
        batches: All of them.
        used: How many were used.
        restore: Called when the first of the others is to be read, for reading draws random numbers.
        unread: Whether used batches may be left out without being read, where the loop can do so (OneDL's).
    """

    def __init__(self, batches: Iterator, used: int, restore: Callable[[], None], unread: bool):
        self.batches, self.used, self.restore, self.unread = batches, used, restore, unread

    def __iter__(self) -> _Rest:
        return self

    def __next__(self) -> Any:
        if self.used == 0:
            self.restore()
        self.used -= 1
        return next(self.batches)

    def skip_iter(self, count: int) -> None:
        """Of OneDL's loop: leave out batches. Workers read them, for their random numbers are to be where they were."""
        if self.unread:
            self.batches.skip_iter(count)
            self.used -= count
        else:
            for _ in range(count):
                next(self)


class _RestOfEpoch:
    """A dataloader whose iteration begins after the batches that were used; they are read and thrown away."""

    def __init__(self, loader: DataLoader, used: int, restore: Callable[[], None]):
        self.loader, self.used, self.restore = loader, used, restore

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        batches = iter(self.loader)
        for _ in range(self.used):
            next(batches)
        self.restore()
        return batches
