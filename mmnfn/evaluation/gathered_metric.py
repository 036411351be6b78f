"""A metric over all ranks whose batches may be uneven."""

from __future__ import annotations

import hashlib
from typing import Any, Dict, Hashable, List, Sequence

from mmengine.dist import broadcast_object_list, collect_results, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric


def response_digests(data_batch: Dict[str, Any]) -> List[str]:
    """A short text for the response (N,) of each sample of a batch, which tells trials of the same image apart."""
    return [hashlib.sha1(response.cpu().numpy().tobytes()).hexdigest() for response in data_batch['responses']]


def photo_ids(data_batch: Dict[str, Any], data_samples: Sequence[dict]) -> List[int]:
    """The photograph of each sample of a batch; where the dataset names none, each image is its own."""
    return [int(i) for i in data_batch.get('photo_id', [sample['image_id'] for sample in data_samples])]


class GatheredMetric(BaseMetric):
    """Collects a dict per sample from all ranks, each sample once.

    mmengine's own collection interleaves the ranks and cuts to the size of the dataset, which assumes that all ranks
    have equally many samples in turn; subject-pure batches do not. Here all results are gathered, and a sample that
    was dealt to two ranks counts once. Subclasses put ``subject`` and ``image_id`` into each result, and ``response``
    (:func:`response_digests`) where an image may have several.
    """

    @staticmethod
    def sample_key(result: dict) -> Hashable:
        """What makes a result one of this sample and no other; results are sorted by it."""
        return result['subject'], result['image_id'], result.get('response', '')

    def evaluate(self, size: int) -> Dict[str, float]:
        """Compute the metrics of the whole dataset on rank 0, and hand them to every rank.

        Args:
            size: Number of samples of the dataset.

        Raises:
            RuntimeError: If samples are missing.
        """
        # files for rank 0 alone: features of all images are gigabytes, which no other rank needs
        gathered = collect_results(self.results, get_world_size() * size, 'cpu')
        self.results.clear()
        outcome: Any = None
        if is_main_process():
            try:
                outcome = self._compute(gathered, size)
            except Exception as error:  # the others would wait for ever
                outcome = error
        outcomes = [outcome]
        broadcast_object_list(outcomes)
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]
        return outcomes[0]

    def _compute(self, gathered: List[dict], size: int) -> Dict[str, float]:
        """Compute the metrics of what all ranks have, each sample once."""
        unique: Dict[Hashable, dict] = {}
        for result in gathered:
            unique.setdefault(self.sample_key(result), result)
        results = [unique[key] for key in sorted(unique)]
        if len(results) != size:
            raise RuntimeError(
                f'{type(self).__name__} got {len(results)} distinct samples of a dataset of {size}. If fewer, is a '
                'picture twice in the dataset of a subject? If more, do transforms change the responses at random?'
            )
        prefix = f'{self.prefix}/' if self.prefix else ''
        return {prefix + name: value for name, value in self.compute_metrics(results).items()}
