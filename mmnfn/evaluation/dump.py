"""Predictions of a test run as a file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Collection, Dict, List, Sequence, Union

import torch
from mmengine.dist import is_main_process
from mmengine.evaluator.metric import _to_cpu

from mmnfn.engine.checkpoint import RestrictedPickle
from mmnfn.utils import atomic_write

from .gathered_metric import GatheredMetric, photo_ids, response_digests


class DumpSubjectResults(GatheredMetric):
    """Write the predictions (``--dump``) of models that are tested on :class:`mmnfn.datasets.NSDDataset`.

    The pickle file holds a list with a dict for each sample, sorted by subject, then by image, each sample once
    whatever the number of processes. A dict has ``subject`` (str), ``image_id`` (int, 0-based 73k id), ``photo_id``
    (int, the same for crops of one photograph) and what the model predicts, as tensors on the CPU: for
    :class:`~mmnfn.models.NeuroFusionNet` ``image_embedding`` and ``fmri_embedding`` (D,), ``image_roi_embeddings`` and
    ``fmri_roi_embeddings`` (K, D), all L2-normalised, ``roi_present`` (K,) bool and, with fusion, ``fused_embedding``
    (E,). What is kept of an encoding test, see ``prediction_file`` of :class:`~mmnfn.evaluation.EncodingMetric`.

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
        photos = photo_ids(data_batch, data_samples)
        for sample, photo, response in zip(data_samples, photos, response_digests(data_batch)):
            # a sample's tensors are views of the batch's, and pickle would write the whole batch for each
            own = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in _to_cpu(sample).items()}
            prediction = dict(own, subject=subject, photo_id=photo)
            self.results.append(
                dict(subject=subject, image_id=int(sample['image_id']), response=response, prediction=prediction)
            )

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Write the file, on rank 0."""
        if is_main_process():
            write_predictions(self.out_file_path, [result['prediction'] for result in results])
        return {}


def write_predictions(path: Union[str, Path], predictions: Sequence[dict]) -> None:
    """Write a dict for each sample as a pickle file."""
    with atomic_write(path) as temporary, open(temporary, 'wb') as file:
        pickle.dump(list(predictions), file)


def read_predictions(path: Union[str, Path], fields: Collection[str] = ('subject', 'image_id')) -> List[dict]:
    """Read predictions of ``tools/test.py --dump``; nothing in the file is run.

    Args:
        path: The file.
        fields: What each sample must have.

    Raises:
        ValueError: The file is damaged, or holds something else.
    """
    wanted = f' with {" and ".join(fields)}' if fields else ''
    try:
        with open(path, 'rb') as file:
            predictions = RestrictedPickle.load(file)
        if not predictions or not all(set(fields) <= set(entry) for entry in predictions):
            raise ValueError(f'it holds no list of predictions{wanted}')
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f'{path} cannot be read as predictions ({type(error).__name__}: {error}). Make it again with tools/test.py '
            '--dump.'
        ) from error
    return predictions
