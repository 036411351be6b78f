"""Exact resume: checkpoints that hold what MMEngine leaves out, and a hook that goes on from them."""

from __future__ import annotations

import os.path as osp
import random
import re
import warnings
from collections import deque
from copy import deepcopy
from itertools import chain, repeat
from pathlib import PurePath
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import worker_init_fn
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from mmnfn.registry import HOOKS
from mmnfn.utils import UserError, atomic_write

from ..checkpoint import literal_config, non_finite

RESUME_KEY = 'mmnfn_resume'

# Settings that make a training, compared between the config of a checkpoint and that of the run that resumes it, ...
COMPARED = ('data_preprocessor', 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler')
# ... but for what has no consequence, is checked by the number of batches of an epoch, or just takes effect, ...
FREE = re.compile(
    r'.*(num_workers|persistent_workers|pin_memory|prefetch_factor|backend_args|with_cp|_root|_dir)(\..*)?'
    r'|train_dataloader\.batch_size|train_cfg\.val_.*|model\.test_cfg.*'
    r'|optim_wrapper\.(type|loss_scale|dtype|clip_grad|accumulative_counts)(\..*)?'
)
# ... and what is in the state of the optimizer or of the schedules.
KEPT = re.compile(r'optim_wrapper\.optimizer\.(?!type$).*|param_scheduler\..*(?<!\.type)')
LENGTH = re.compile(r'train_cfg\.max_(epochs|iters)')


class ResumeError(UserError):
    """A run cannot be the continuation of the one that is resumed."""


def random_state() -> Dict[str, Any]:
    """Read the state of Python's, NumPy's and torch's global generators, the current accelerator's included.

    Returns:
        ``python``, ``numpy``, ``torch`` and ``cuda`` (None where CUDA is not in use), made of tensors, lists, tuples,
        str and numbers only, so that ``torch.load(weights_only=True)`` reads it.
    """
    name, keys, *rest = np.random.get_state()
    return dict(
        python=random.getstate(),
        numpy=(name, torch.from_numpy(keys.astype(np.int64)), *rest),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    )


def set_random_state(state: Dict[str, Any]) -> None:
    """Set all generators to what :func:`random_state` returned; its tensors may be on any device."""
    version, keys, gauss = state['python']
    random.setstate((version, tuple(keys), gauss))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def resume_state(runner) -> Dict[str, Any]:
    """Collect what MMEngine leaves out of a checkpoint; every process must call this.

    Returns:
        ``random_states`` of all processes (:func:`random_state`), ``world_size``, ``batches_per_epoch`` of a process,
        ``num_workers`` and ``sampler_seed``.
    """
    loader = runner.train_dataloader
    return dict(
        random_states=all_gather_object(random_state()),
        world_size=get_world_size(),
        batches_per_epoch=len(loader),
        num_workers=loader.num_workers,
        sampler_seed=getattr(_sampler(loader), 'seed', None),
    )


def _sampler(loader: DataLoader) -> Any:
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """Write checkpoints that survive the death of the process at any time, and hold the random numbers' state.

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
        if not self.backend_args and '://' not in str(self.out_dir or runner.work_dir):
            self.backend_args = dict(backend='mmnfn_whole_file')
        super().before_train(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the entry; best-metric checkpoints, which cannot be resumed from, get none."""
        if self._resume_state is not None:
            checkpoint[RESUME_KEY] = self._resume_state

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        """Write the checkpoint, then ``last_checkpoint``, then remove what is too old; called by all processes.

        Raises:
            FloatingPointError: Weights are NaN or infinite; nothing is written.
        """
        name = self.filename_tmpl.format(step)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        spoiled = sum(all_gather_object(non_finite(model.state_dict())), [])
        if spoiled:
            raise FloatingPointError(
                f'{name} is not written: {len(spoiled)} of its tensors are not finite, {spoiled[0]} among them. Start '
                'a new run with a lower learning rate, or with optim_wrapper.clip_grad.'
            )
        kept: List[int] = []
        if self.max_keep_ckpts > 0:
            kept = [*(old for old in self.keep_ckpt_ids if old != step), step]
            # The surplus is in the file, too: if the process dies before it is removed, the resumed run removes it.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._resume_state = resume_state(runner)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._resume_state = None
        if is_main_process():
            with atomic_write(osp.join(runner.work_dir, 'last_checkpoint')) as temporary:
                temporary.write_text(self.last_ckpt, 'utf-8')
            for old in kept[: -self.max_keep_ckpts]:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
        if kept:
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))


def compare_training(text: Optional[str], cfg: Config, path: str) -> Tuple[List[str], List[str]]:
    """Compare the config of a checkpoint with that of the run that resumes it.

    Args:
        text: The checkpoint's, as MMEngine writes it into the metadata; None or '' where it has none.
        cfg: The run's.
        path: The checkpoint, for the error.

    Returns:
        Differences, each as 'key (value there, value here)': in the number of epochs or iterations, with which the
        schedule of ``cfg`` is followed; and in settings for which the checkpoint's value stays.

    Raises:
        ResumeError: They differ in the data, the controls, the model, the loss or the kind of optimizer.
    """
    there, here = (
        {key: settings.get(key) for key in COMPARED} for settings in map(literal_config, (text or '', cfg.pretty_text))
    )
    if not any(there.values()):
        return [], []
    old, new = dict(_leaves(there)), dict(_leaves(here))
    length, kept, refused = [], [], []
    for key in dict.fromkeys([*old, *new]):
        one, other = old.get(key), new.get(key)
        if _same_place(key, one) != _same_place(key, other) and not FREE.fullmatch(key):
            epochs = LENGTH.fullmatch(key) and None not in (one, other)  # not epochs there and iterations here
            fate = length if epochs else kept if KEPT.fullmatch(key) else refused
            fate.append(f'{key} ({one!r:.80} there, {other!r:.80} here)')
    if length:
        kept, refused = (
            [entry for entry in found if not entry.startswith('param_scheduler')] for found in (kept, refused)
        )
    if refused:
        raise ResumeError(
            f'--resume: {path} is of another training: {"; ".join(refused[:3])}. Resume it with its own config, or '
            'start a new run in another --work-dir (from its weights with --cfg-options load_from=CHECKPOINT).'
        )
    return length, kept


def _leaves(node: Any, key: str = '') -> Iterator[Tuple[str, Any]]:
    """Yield the values in a config node with their dotted keys; a list of plain values is a value."""
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, (list, tuple)) and any(isinstance(child, (dict, list, tuple)) for child in node):
        children = enumerate(node)
    else:
        yield key, node
        return
    for name, child in children:
        yield from _leaves(child, f'{key}.{name}' if key else name)


def _same_place(key: str, value: Any) -> Any:
    """Shorten a path to what it has in common with that of the same file on another machine."""
    if not isinstance(value, str):
        return value
    # pretrain_nsd/backbone_latest.pth is not pretrain_nsd_shuffled/backbone_latest.pth
    return PurePath(value).parts[-2 if key.endswith('.checkpoint') else -1 :]


@HOOKS.register_module()
class ResumeEpochHook(Hook):
    """Go on after ``--resume`` with the batches and the random numbers that the interrupted run would have had.

    MMEngine alone starts the epoch of the checkpoint anew, so that its first batches are seen twice, and draws other
    random numbers. With this hook, checkpoints of :class:`ResumableCheckpointHook` and as many processes as before, the
    weights after the last iteration are those of the unbroken run, bit for bit on CPUs with one or two processes. (With
    more, gradients are summed in another order in the first iteration after the resume.)

    The random numbers of training depend on the training iterations only: starting a dataloader draws none of them, nor
    does validation. Dataloader workers start anew in each epoch, with seeds of that epoch. Batches that were used are
    read and thrown away, which brings the workers' random numbers to where they were. Not restored are gradients that
    were accumulated and not yet applied.

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
        if not runner._resume:
            return
        meta = checkpoint.get('meta', {})
        length, kept = compare_training(meta.get('cfg'), runner.cfg, runner._load_from)
        self._follow_config = bool(length)
        for found, meaning in (
            (length, 'the learning rate follows the param_scheduler of this config from here on'),
            (kept, "the checkpoint's value stays, because optimizer and schedules continue from their state"),
        ):
            if found:
                runner.logger.warning(f'Not as in the training that is resumed: {"; ".join(found)}: {meaning}.')
        needed = ('message_hub', 'optimizer', *(('param_schedulers',) if runner.param_schedulers else ()))
        missing = [part for part in needed if part not in checkpoint]
        over = meta.get('iter', 0) >= runner.max_iters and missing != ['message_hub']
        if missing and not over:
            raise ResumeError(
                f'--resume: {runner._load_from} has weights, but no {", ".join(missing)}, so training would not go on '
                'but begin with them: it is a best or an exported checkpoint, or one of save_optimizer=False. Give a '
                'training checkpoint (epoch_N.pth, iter_N.pth), or start a new run with --cfg-options '
                'load_from=CHECKPOINT.'
            )

    def before_train(self, runner) -> None:
        """Compare this run with the one that is resumed, and follow the schedule of a longer one.

        Raises:
            ResumeError: The epochs of this run have another number of batches.
        """
        loader, resumed, self._resumed = runner.train_dataloader, self._resumed, None
        if runner.iter == 0:  # started from weights, or from nothing
            return
        if self._follow_config and isinstance(runner.param_schedulers, list):
            _follow_schedule(runner)
        if resumed is None:
            runner.logger.warning(
                'The checkpoint was not written by ResumableCheckpointHook and holds no state of the random numbers, '
                'so the weights will not be exactly those of an unbroken run. Set '
                "default_hooks.checkpoint.type='mmnfn.ResumableCheckpointHook' for the next run."
            )
            return
        if resumed['batches_per_epoch'] != len(loader):
            raise ResumeError(
                f'--resume: the checkpoint is of a run with {resumed["batches_per_epoch"]} batches an epoch on each of '
                f'{resumed["world_size"]} process(es), but here there are {len(loader)} on each of '
                f'{get_world_size()}. Use as many processes and the same batch size and data as before, or start a new '
                'run from its weights with --cfg-options load_from=CHECKPOINT.'
            )
        seed = getattr(_sampler(loader), 'seed', None)
        begun = not isinstance(runner.train_loop, EpochBasedTrainLoop) and loader.num_workers > 0
        if resumed['sampler_seed'] is not None and not begun:  # workers that have begun to read keep their order
            _sampler(loader).seed = seed = resumed['sampler_seed']
        same = dict(
            sampler_seed=('randomness.seed', seed),
            num_workers=('train_dataloader.num_workers', loader.num_workers),
            world_size=('the number of processes', get_world_size()),
        )
        others = [
            f'{name} is {here} and was {resumed[key]}' for key, (name, here) in same.items() if resumed[key] != here
        ]
        if others:
            runner.logger.warning(
                f'{"; ".join(others)}: the order of the images or the random transforms will differ, and the weights '
                'will not be exactly those of an unbroken run.'
            )
        if resumed['world_size'] == get_world_size():
            self._random_state = resumed['random_states'][get_rank()]

    def before_train_epoch(self, runner) -> None:
        """Leave out the batches that the checkpoint has seen, and restore the random numbers."""
        loop = runner.train_loop
        if self._loader is not None:  # of an epoch that began in its middle
            loop.dataloader, self._loader = self._loader, None
        loader = loop.dataloader
        # The workers' seed of an epoch is drawn from this generator, and not from torch's global one.
        seed = runner.seed + runner.epoch * get_world_size() + get_rank()
        loader.generator = torch.Generator().manual_seed(seed)
        if not isinstance(loop, EpochBasedTrainLoop):
            self._skip_iterations(loop, runner.iter)
            return
        if loader.num_workers > 0:
            if getattr(loader.worker_init_fn, 'func', None) is worker_init_fn:
                loader.worker_init_fn = None  # MMEngine's gives all epochs the same seeds, torch those drawn above
            loader._iterator = None  # workers that live on would have random numbers of the epochs before
        self._restore()
        done = runner.iter - runner.epoch * len(loader)
        if done > 0:
            state, self._loader = random_state(), loader
            loop.dataloader = _RestOfEpoch(loader, done, lambda: set_random_state(state))
            runner.logger.info(f'Resumed in mid-epoch: {done} batches of epoch {runner.epoch + 1} are left out.')

    def _skip_iterations(self, loop: Any, used: int) -> None:
        """Read the batches that were used before an IterBasedTrainLoop does, and restore the random numbers after."""
        if used == 0:
            return
        batches = loop.dataloader_iterator
        for _ in range(used if used < loop.max_iters else 0):  # a training that is over reads nothing
            next(batches)
        self._restore()
        if hasattr(loop, 'fast_forward_on_resume'):  # OneDL's MMEngine skips nothing then
            loop.fast_forward_on_resume = True
        else:
            loop.dataloader_iterator = chain(repeat(None, used), batches)

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


class _RestOfEpoch:
    """A dataloader whose iteration begins after the batches that were used."""

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
