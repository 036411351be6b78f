"""A metric over all ranks whose batches may differ in size."""

from __future__ import annotations

import hashlib
from typing import Any, Dict, Hashable, List, Sequence

from mmengine.dist import broadcast_object_list, collect_results, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric


def response_digests(data_batch: Dict[str, Any]) -> List[str]:
    """Hash the response (N,) of each sample of a batch, to tell trials of the same image apart."""
    return [hashlib.sha1(response.cpu().numpy().tobytes()).hexdigest() for response in data_batch['responses']]


def photo_ids(data_batch: Dict[str, Any], data_samples: Sequence[dict]) -> List[int]:
    """List the photograph of each sample of a batch; without ``photo_id`` each image is its own photograph."""
    return [int(i) for i in data_batch.get('photo_id', [sample['image_id'] for sample in data_samples])]


class GatheredMetric(BaseMetric):
    """Collect a dict per sample from all ranks, each sample once.

    MMEngine's own collection interleaves the ranks and cuts the result to the size of the dataset, which is wrong if
    ranks have different numbers of samples, as with subject-pure batches. Here all results are gathered, and a sample
    that two ranks have counts once. Subclasses put ``subject`` and ``image_id`` into each result, and ``response``
    (:func:`response_digests`) if an image may have several.
    """

    @staticmethod
    def sample_key(result: dict) -> Hashable:
        """Identify the sample of a result; results are sorted by it."""
        return result['subject'], result['image_id'], result.get('response', '')

    def evaluate(self, size: int) -> Dict[str, float]:
        """Compute the metrics of the whole dataset on rank 0, and hand them to every rank.

        Args:
            size: Number of samples of the dataset.

        Raises:
            RuntimeError: If the number of distinct samples is another one.
        """
        # Through files to rank 0 alone: the features of all images are gigabytes that no other rank needs.
        gathered = collect_results(self.results, get_world_size() * size, 'cpu')
        self.results.clear()
        outcome: Any = None
        if is_main_process():
            try:
                outcome = self._compute(gathered, size)
            except Exception as error:  # otherwise the other ranks would wait for ever
                outcome = error
        outcomes = [outcome]
        broadcast_object_list(outcomes)
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]
        return outcomes[0]

    def _compute(self, gathered: List[dict], size: int) -> Dict[str, float]:
        """Compute the metrics from the results of all ranks."""
        unique: Dict[Hashable, dict] = {}
        for result in gathered:
            unique.setdefault(self.sample_key(result), result)
        results = [unique[key] for key in sorted(unique)]
        if len(results) != size:
            raise RuntimeError(
                f'{type(self).__name__} got {len(results)} distinct samples of a dataset of {size}. If fewer, does the '
                'dataset of a subject have an image twice? If more, do transforms change the responses at random?'
            )
        prefix = f'{self.prefix}/' if self.prefix else ''
        return {prefix + name: value for name, value in self.compute_metrics(results).items()}
