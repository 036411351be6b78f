"""Voxel-wise encoding: how well frozen image features predict the responses of each voxel."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Sequence

import numpy as np
from himalaya.backend import set_backend
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import RidgeCV

from mmnfn.registry import METRICS

from .gathered_metric import GatheredMetric


def pearson_r(prediction: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column; NaN where either is constant.

    Args:
        prediction: (images, V).
        response: (images, V).

    Returns:
        (V,) float64.
    """
    p = prediction - prediction.mean(0, dtype=np.float64)
    q = response - response.mean(0, dtype=np.float64)
    with np.errstate(invalid='ignore', divide='ignore'):
        return (p * q).sum(0) / np.sqrt((p**2).sum(0) * (q**2).sum(0))


class EncodingResult(NamedTuple):
    """Outcome of an encoding model.

    Attributes:
        prediction: (test images, V).
        r: (V,) raw Pearson r between prediction and response over the test images.
        standard_error: Of the mean of r over voxels with a value, by bootstrap over test images.
    """

    prediction: np.ndarray
    r: np.ndarray
    standard_error: float


def fit_encoding_model(
    train_features: np.ndarray,
    train_responses: np.ndarray,
    test_features: np.ndarray,
    test_responses: np.ndarray,
    alphas: Sequence[float] = tuple(np.logspace(-1, 6, 15)),
    bootstraps: int = 200,
    seed: int = 0,
) -> EncodingResult:
    """Ridge regression from features to voxels, regularisation chosen per voxel by 5-fold cross-validation (himalaya).

    Features are z-scored with mean and deviation of the training images.

    Args:
        train_features: (n, F). train_responses: (n, V).
        test_features: (m, F). test_responses: (m, V).
        alphas: Candidates for the regularisation.
        bootstraps: Number of resamplings of the test images.
        seed: Of the bootstrap.

    Raises:
        ValueError: If there are fewer than 10 training or 3 test images.
    """
    if len(train_features) < 10 or len(test_features) < 3:
        raise ValueError(
            f'an encoding model needs at least 10 training and 3 test images, found {len(train_features)} and '
            f'{len(test_features)}.'
        )
    set_backend('numpy')
    mean, deviation = train_features.mean(0), train_features.std(0)
    deviation = np.where(deviation > 1e-8, deviation, 1)
    x, x_test = ((f - mean) / deviation for f in (train_features, test_features))
    solver = RidgeCV if x.shape[1] <= x.shape[0] else KernelRidgeCV
    model = solver(alphas=np.asarray(alphas), cv=5).fit(x.astype(np.float32), train_responses.astype(np.float32))
    prediction = np.asarray(model.predict(x_test.astype(np.float32)))
    r = pearson_r(prediction, test_responses)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(bootstraps):
        pick = rng.integers(0, len(prediction), len(prediction))
        means.append(np.nanmean(pearson_r(prediction[pick], test_responses[pick])))
    return EncodingResult(prediction, r, float(np.std(means, ddof=1)))


@METRICS.register_module()
class EncodingMetric(GatheredMetric):
    """PCC of a voxel-wise encoding model on frozen backbone features.

    The dataset must give the training and the test images of each subject (``split='all'``); the model,
    :class:`mmnfn.models.BackboneFeatures`, gives ``features``. Per subject a ridge is fitted on the training images and
    scored on the test images. Figures: ``pcc``, raw Pearson r averaged over voxels and subjects; ``pcc_normalized``, r
    divided by the square root of the noise ceiling, over voxels whose ceiling is at least ``min_ceiling`` percent;
    ``pcc_se``, bootstrap standard error of ``pcc`` over test images; ``pcc_roi_<ROI>`` and ``<subject>_pcc``, raw.

    Args:
        min_ceiling: Voxels with a lower noise ceiling (percent of variance) are left out of ``pcc_normalized``.
        **kwargs: See :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'encoding'

    def __init__(self, min_ceiling: float = 5.0, **kwargs):
        super().__init__(**kwargs)
        self.min_ceiling = min_ceiling

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep features and responses of a batch."""
        geometry = data_batch['geometry']
        for sample, responses, split in zip(data_samples, data_batch['responses'], data_batch['split']):
            self.results.append(
                dict(
                    subject=geometry.subject,
                    image_id=int(sample['image_id']),
                    split=split,
                    features=sample['features'].float().cpu().numpy(),
                    responses=responses.cpu().numpy(),
                    rois=(geometry.roi_names, geometry.roi_sizes),
                    noise_ceiling=data_batch['noise_ceiling'].numpy(),
                )
            )

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Fit and score each subject."""
        figures: Dict[str, List[float]] = {}
        squared_errors = []
        for subject in sorted({r['subject'] for r in results}):
            own = {
                split: [r for r in results if r['subject'] == subject and r['split'] == split]
                for split in ('train', 'test')
            }
            arrays = [
                np.stack([r[key] for r in own[split]]) if own[split] else np.zeros((0, 1))
                for split in ('train', 'test')
                for key in ('features', 'responses')
            ]
            outcome = fit_encoding_model(*arrays)
            pcc = float(np.nanmean(outcome.r))
            figures.setdefault('pcc', []).append(pcc)
            figures[f'{subject}_pcc'] = [pcc]
            squared_errors.append(outcome.standard_error**2)
            names, sizes = own['test'][0]['rois']
            for name, r in zip(names, np.split(outcome.r, np.cumsum(sizes)[:-1])):
                if r.size:
                    figures.setdefault(f'pcc_roi_{name}', []).append(float(np.nanmean(r)))
            ceiling = own['test'][0]['noise_ceiling']
            good = ceiling >= self.min_ceiling
            figures.setdefault('pcc_normalized', []).append(
                float(np.nanmean(outcome.r[good] / np.sqrt(ceiling[good] / 100)))
            )
        means = {name: float(np.mean(values)) for name, values in figures.items()}
        means['pcc_se'] = float(np.sqrt(np.sum(squared_errors)) / len(squared_errors))
        return means
