"""A hook that makes a resumed run the continuation of the interrupted one."""

from __future__ import annotations

import re
import warnings
from copy import deepcopy
from itertools import repeat
from pathlib import PurePath
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from mmnfn.registry import HOOKS

from ..checkpoint import literal_config
from ..random_state import random_state, set_random_state
from .resumable_checkpoint_hook import RESUME_KEY

# Where the config of a checkpoint and that of the run that resumes it are compared, and what becomes of a difference.
# The first pattern that fits counts; what fits none is refused.
COMPARED = (
    *('default_scope', 'data_preprocessor', 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    *('param_scheduler', 'auto_scale_lr'),
)
DIFFERENCES = dict(
    # of no consequence, or found by the number of batches of an epoch
    free=r'.*\.(num_workers|persistent_workers|pin_memory|prefetch_factor|backend_args|with_cp)(\..*)?'
    r'|train_dataloader\.batch_size|train_cfg\.(val_.*|dynamic_intervals.*)|model\.test_cfg.*',
    length=r'train_cfg\.max_(epochs|iters)',
    # in the state of the optimizer or of the schedules
    kept=r'optim_wrapper\.optimizer\.(?!type$).*|param_scheduler\..*(?<!\.type)|auto_scale_lr.*',
    changed=r'optim_wrapper\.(type|loss_scale|dtype|clip_grad|accumulative_counts)(\..*)?',
)


class ResumeError(ValueError):
    """A run cannot be the continuation of the one that is resumed."""


def compare_training(text: Optional[str], cfg: Config, path: str) -> Dict[str, List[str]]:
    """Compare the config of a checkpoint with that of the run that resumes it.

    Args:
        text: The checkpoint's, as MMEngine writes it into the metadata; None or '' where it has none.
        cfg: The run's.
        path: The checkpoint, for the error.

    Returns:
        The differences, each as 'key (value there, value here)', by what becomes of them: ``'length'``, another number
        of epochs or iterations, with which the schedule of ``cfg`` is followed; ``'kept'``, where the checkpoint's
        value stays; ``'changed'``, where that of ``cfg`` takes effect; ``'moved'``, paths that are taken to be the same
        data in another place.

    Raises:
        ResumeError: They differ in the data, the controls, the model, the loss or the optimizer's groups.
    """
    found: Dict[str, List[str]] = {name: [] for name in (*DIFFERENCES, 'moved', 'refused')}
    there, here = literal_config(text or ''), literal_config(cfg.pretty_text)
    for part in COMPARED if there else ():
        for key, old, new in _differences(there.get(part), here.get(part), part):
            fate = next((name for name, keys in DIFFERENCES.items() if re.fullmatch(keys, key)), 'refused')
            if fate == 'length' and None in (old, new):  # epochs there and iterations here
                fate = 'refused'
            if fate == 'refused' and _is_moved(key, old, new):
                fate = 'moved'
            found[fate].append(f'{key} ({_short(old)} there, {_short(new)} here)')
    if found['length']:
        for fate in ('kept', 'refused'):
            found[fate] = [entry for entry in found[fate] if not entry.startswith('param_scheduler')]
    refused = found['refused']
    if refused:
        more = f' and {len(refused) - 3} more' if len(refused) > 3 else ''
        raise ResumeError(
            f'--resume: {path} is of another training: {"; ".join(refused[:3])}{more}. Resume it with its own config, '
            'or start a new run in another --work-dir (from its weights with --cfg-options load_from=CHECKPOINT).'
        )
    return found


def _differences(old: Any, new: Any, key: str) -> Iterator[Tuple[str, Any, Any]]:
    """Dotted keys below a node, with both values, where they differ; what is missing is None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(name), new.get(name), f'{key}.{name}')
    elif isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        if len(old) != len(new) or not any(isinstance(child, (dict, list, tuple)) for child in old):
            if list(old) != list(new):
                yield key, old, new
            return
        for number, pair in enumerate(zip(old, new)):
            yield from _differences(*pair, f'{key}.{number}')
    elif old != new and (old, new) not in (('SyncBN', 'BN'), ('BN', 'SyncBN')):  # the latter on CPUs
        yield key, old, new


def _is_moved(key: str, old: Any, new: Any) -> bool:
    """Whether two values are paths that the same data or weights can have on two machines."""
    if not (isinstance(old, str) and isinstance(new, str)):
        return False
    old_parts, new_parts = PurePath(old).parts, PurePath(new).parts
    if key.endswith('.checkpoint'):  # pretrain_nsd/backbone_latest.pth, pretrain_nsd_shuffled/backbone_latest.pth
        return old_parts[-2:] == new_parts[-2:]
    return key.endswith(('_root', '_dir')) or old_parts[-1:] == new_parts[-1:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


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

    The config of the checkpoint is compared with that of this run (:func:`compare_training`). With another
    ``max_epochs`` or ``max_iters`` the learning rate goes on as if this run's ``param_scheduler`` had been followed
    from the beginning, with the initial learning rate of the checkpoint.
    """

    def __init__(self) -> None:
        self._resumed: Optional[Dict[str, Any]] = None
        self._random_state: Optional[Dict[str, Any]] = None
        self._loader: Optional[DataLoader] = None
        self._follow_config = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember what the checkpoint says of the run that wrote it.

        Raises:
            ResumeError: Training is to go on, and the checkpoint has no state of the optimizer or of the schedules, or
                is of another training.
        """
        self._resumed = checkpoint.get(RESUME_KEY)
        meta = checkpoint.get('meta', {})
        if runner._resume:
            self._compare(runner, meta.get('cfg'))
        done = meta.get('iter')
        parts = ('message_hub', 'optimizer', *(('param_schedulers',) if runner.param_schedulers else ()))
        missing = [part for part in parts if part not in checkpoint]
        if not runner._resume or not missing or (missing != ['message_hub'] and done and done >= runner.max_iters):
            return
        raise ResumeError(
            f'--resume: {runner._load_from} has weights, but no {", ".join(missing)}, so that training would not go on '
            'but begin with them: it is a best or an exported checkpoint, or one of save_optimizer=False. Give a '
            'training checkpoint (epoch_N.pth, iter_N.pth), or start a new run with --cfg-options load_from=CHECKPOINT.'
        )

    def _compare(self, runner, text: Optional[str]) -> None:
        """Say what differs from the training that is resumed."""
        found = compare_training(text, runner.cfg, runner._load_from)
        self._follow_config = bool(found['length'])
        for fate, meaning in (
            ('length', 'the learning rate follows the param_scheduler of this config from here on'),
            ('kept', "the checkpoint's value stays, for it is in the state of the optimizer or of the schedules"),
            ('changed', "this config's value takes effect from here on"),
            ('moved', 'this is taken to be the same in another place'),
        ):
            if found[fate]:
                runner.logger.warning(f'Not as in the training that is resumed: {"; ".join(found[fate])}: {meaning}.')

    def before_train(self, runner) -> None:
        """Compare this run with the one that is resumed, and follow the schedule of a longer one.

        Raises:
            ResumeError: The epochs of this run have another number of batches.
        """
        loader = runner.train_dataloader
        resumed, self._resumed = self._resumed, None
        if runner.iter == 0:  # started from weights, or from nothing
            return
        if self._follow_config and isinstance(runner.param_schedulers, list):
            _follow_schedule(runner)
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


def _follow_schedule(runner) -> None:
    """Put the config's schedules in place of the checkpoint's, and bring them to its iteration."""
    for scheduler in runner.param_schedulers:
        for group in runner.optim_wrapper.param_groups:
            group[scheduler.param_name] = group[f'initial_{scheduler.param_name}']
    schedulers = runner.build_param_scheduler(deepcopy(runner.cfg.param_scheduler))
    runner.param_schedulers = schedulers
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*optimizer.step')
        for iteration in range(1, runner.iter + 1):  # as ParamSchedulerHook does
            epoch_ends = by_epoch and iteration % len(runner.train_dataloader) == 0
            for ends in (False, True) if epoch_ends else (False,):
                for scheduler in schedulers:
                    if scheduler.by_epoch == ends:
                        scheduler.step()
    if all(scheduler.end < (runner.max_epochs if scheduler.by_epoch else runner.max_iters) for scheduler in schedulers):
        runner.logger.warning(
            'param_scheduler ends before the training, and the learning rate stays there. Set its end, too, if it is '
            f'not meant to: --cfg-options param_scheduler.{len(schedulers) - 1}.end=…'
        )


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
