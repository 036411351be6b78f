"""Batches of one subject each."""

from __future__ import annotations

import math
from typing import Iterator, List

import numpy as np
from torch.utils.data import Sampler

from mmnfn.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class SubjectBatchSampler(Sampler):
    """Batch sampler that keeps every batch within one subject.

    Each subject's samples are cut into batches of nearly equal size, at most ``batch_size``, so that every sample is
    used and none is left alone in a last batch. The batches of all subjects are shuffled together and dealt out to
    the ranks, which all get the same number: the first batches are dealt again where the last round is incomplete.

    Args:
        sampler: A :class:`mmengine.dataset.DefaultSampler`; its dataset (an ``NSDDataset``), seed, epoch, rank and
            ``shuffle`` are used.
        batch_size: Largest batch.

    Raises:
        ValueError: If the dataset does not know its subjects.
    """

    def __init__(self, sampler: Sampler, batch_size: int):
        if not hasattr(sampler.dataset, 'subject_indices'):
            raise ValueError(f'SubjectBatchSampler needs an NSDDataset, found {type(sampler.dataset).__name__}.')
        if batch_size < 1:
            raise ValueError(f'batch_size is {batch_size}; it must be at least 1.')
        self.sampler = sampler
        self.batch_size = batch_size
        self._skipped = 0
        # a dataset that is cut to a few samples (BaseDataset's indices) may have none of a subject
        self._indices = {name: own for name, own in sampler.dataset.subject_indices().items() if len(own)}
        total = sum(math.ceil(len(i) / batch_size) for i in self._indices.values())
        self._batches_per_rank = math.ceil(total / sampler.world_size)

    def __len__(self) -> int:
        return self._batches_per_rank

    def skip(self, batches: int) -> None:
        """Leave out the first batches of the next epoch, which were used before training was interrupted.

        Raises:
            ValueError: If there are not that many.
        """
        if not 0 <= batches <= len(self):
            raise ValueError(f'batches is {batches}; an epoch has {len(self)} on each rank.')
        self._skipped = batches

    def __iter__(self) -> Iterator[List[int]]:
        rng = np.random.default_rng([self.sampler.seed, self.sampler.epoch])
        batches: List[List[int]] = []
        for indices in self._indices.values():
            order = rng.permutation(indices) if self.sampler.shuffle else indices
            batches += [part.tolist() for part in np.array_split(order, math.ceil(len(order) / self.batch_size))]
        if self.sampler.shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        first, self._skipped = self._skipped, 0
        for position in range(first, self._batches_per_rank):
            yield batches[(position * self.sampler.world_size + self.sampler.rank) % len(batches)]
