"""Batches that keep the samples of a subject together."""

from __future__ import annotations

import math
from typing import Dict, Iterator, List

import numpy as np
from torch.utils.data import Sampler

from mmnfn.registry import DATA_SAMPLERS
from mmnfn.utils import UserError


@DATA_SAMPLERS.register_module()
class SubjectBatchSampler(Sampler):
    """Draw batches that keep the samples of a subject together.

    In training (``shuffle``) a step over all processes consists of ``subjects_per_step`` groups of fixed size, each of
    one subject, and every rank gets an equal share of it. The content of a step thus depends on its number of images
    and not on the number of processes. Subjects take turns, those with more samples more often; a subject appears
    twice in a step only if the others have no samples left. An epoch uses every sample, and some of them twice to fill
    the last groups.

    In testing every batch holds samples of one subject, at most ``batch_size`` and of nearly equal number, each sample
    once. Batches are dealt to the ranks in turn; the first batches are dealt again if the last round is incomplete.

    Args:
        sampler: A :class:`mmengine.dataset.DefaultSampler`; its dataset (an ``NSDDataset``), seed, epoch, rank and
            ``shuffle`` are used.
        batch_size: Images per process and step.
        subjects_per_step: Groups in a training step over all processes.

    Raises:
        ValueError: If the dataset is not an ``NSDDataset``, or a step has fewer images than groups.
    """

    def __init__(self, sampler: Sampler, batch_size: int, subjects_per_step: int = 1):
        if not hasattr(sampler.dataset, 'subject_indices'):
            raise ValueError(f'SubjectBatchSampler needs an NSDDataset, found {type(sampler.dataset).__name__}.')
        if batch_size < 1:
            raise ValueError(f'batch_size is {batch_size}; it must be at least 1.')
        self.sampler = sampler
        self.batch_size = batch_size
        # A dataset that is cut to a few samples (BaseDataset's indices) may have none of a subject.
        self._indices = {name: own for name, own in sampler.dataset.subject_indices().items() if len(own)}
        if not sampler.shuffle:
            batches = sum(math.ceil(len(own) / batch_size) for own in self._indices.values())
            self._length = math.ceil(batches / sampler.world_size)
            return
        step = batch_size * sampler.world_size
        if not 1 <= subjects_per_step <= step:
            raise UserError(
                f'subjects_per_step is {subjects_per_step}; it must be at least 1 and at most the {step} images of a '
                f'step ({sampler.world_size} process(es) x batch_size={batch_size}).'
            )
        self._sizes = [len(part) for part in np.array_split(range(step), subjects_per_step)]
        self._groups = {name: math.ceil(len(own) / min(self._sizes)) for name, own in self._indices.items()}
        self._length = math.ceil(sum(self._groups.values()) / subjects_per_step)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[List[int]]:
        rank, world_size = self.sampler.rank, self.sampler.world_size
        if self.sampler.shuffle:
            share = slice(rank * self.batch_size, (rank + 1) * self.batch_size)
            batches = [step[share] for step in self._steps()]
        else:
            batches = [
                part.tolist()
                for own in self._indices.values()
                for part in np.array_split(own, math.ceil(len(own) / self.batch_size))
            ]
            batches = [batches[(position * world_size + rank) % len(batches)] for position in range(len(self))]
        yield from batches

    def _steps(self) -> List[List[int]]:
        """Draw the samples of the steps of an epoch, for all ranks together."""
        rng = np.random.default_rng([self.sampler.seed, self.sampler.epoch])
        order = {name: rng.permutation(own) for name, own in self._indices.items()}
        used, left = dict.fromkeys(order, 0), dict(self._groups)
        steps = []
        for _ in range(len(self)):
            chosen: List[str] = []
            for _ in self._sizes:
                names = [name for name in left if left[name]] or list(left)
                names = [name for name in names if name not in chosen] or names
                share = [left[name] / self._groups[name] for name in names]
                name = names[np.lexsort((rng.random(len(names)), share))[-1]]  # the largest share, ties at random
                left[name] = max(left[name] - 1, 0)
                chosen.append(name)
            step: List[int] = []
            sizes: Dict[str, int] = dict.fromkeys(chosen, 0)
            for name, size in zip(chosen, self._sizes):
                sizes[name] += size
            for name, size in sizes.items():
                step += order[name][np.arange(used[name], used[name] + size) % len(order[name])].tolist()
                used[name] += size
            steps.append(step)
        return steps
