"""A metric over all ranks whose batches may be uneven."""

from __future__ import annotations

from typing import Dict, List

from mmengine.dist import all_gather_object
from mmengine.evaluator import BaseMetric


class GatheredMetric(BaseMetric):
    """Collects a dict per sample from all ranks, each sample once.

    mmengine's own collection interleaves the ranks and cuts to the size of the dataset, which assumes that all ranks
    have equally many samples in turn; subject-pure batches do not. Here all results are gathered, and a sample that
    was dealt to two ranks counts once. Subclasses put ``subject`` and ``image_id`` into each result.
    """

    def evaluate(self, size: int) -> Dict[str, float]:
        """Metrics of the whole dataset, the same on every rank.

        Args:
            size: Number of samples of the dataset.

        Raises:
            RuntimeError: If samples are missing.
        """
        unique: Dict[tuple, dict] = {}
        for part in all_gather_object(self.results):
            for result in part:
                unique.setdefault((result['subject'], result['image_id']), result)
        results: List[dict] = [unique[key] for key in sorted(unique)]
        self.results.clear()
        if len(results) != size:
            raise RuntimeError(
                f'{type(self).__name__} got {len(results)} distinct samples of a dataset of {size}. '
                'Is a picture twice in the dataset of a subject?'
            )
        prefix = f'{self.prefix}/' if self.prefix else ''
        return {prefix + name: value for name, value in self.compute_metrics(results).items()}
