"""Predictions of a test run as a file."""

from __future__ import annotations

import pickle
from typing import Dict, List, Sequence

from mmengine.dist import is_main_process
from mmengine.evaluator.metric import _to_cpu

from mmnfn.engine.whole_file import whole_file

from .gathered_metric import GatheredMetric, response_digests


class DumpSubjectResults(GatheredMetric):
    """``--dump`` for models that are tested on :class:`mmnfn.datasets.NSDDataset`.

    The pickle file holds a list with a dict for each sample, sorted by subject, then by image, each sample once
    whatever the number of processes. A dict has ``subject`` (str), ``image_id`` (int, 0-based 73k id) and what the
    model predicts, as tensors on the CPU: for :class:`~mmnfn.models.NeuroFusionNet` ``image_embedding`` and
    ``fmri_embedding`` (D,), ``image_roi_embeddings`` and ``fmri_roi_embeddings`` (K, D), all L2-normalised,
    ``roi_present`` (K,) bool and, with fusion, ``fused_embedding`` (E,); for
    :class:`~mmnfn.models.BackboneFeatures` ``features``.

    Args:
        out_file_path: The file.
        **kwargs: See :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'dump'

    def __init__(self, out_file_path: str, **kwargs):
        super().__init__(**kwargs)
        self.out_file_path = out_file_path

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch."""
        subject = data_batch['geometry'].subject
        for sample, response in zip(data_samples, response_digests(data_batch)):
            prediction = dict(_to_cpu(sample), subject=subject)
            self.results.append(
                dict(subject=subject, image_id=int(sample['image_id']), response=response, prediction=prediction)
            )

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Write the file, on rank 0."""
        if is_main_process():
            with whole_file(self.out_file_path) as temporary, open(temporary, 'wb') as file:
                pickle.dump([result['prediction'] for result in results], file)
        return {}
