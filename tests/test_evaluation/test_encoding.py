"""Encoding: Pearson r against scipy, ridge against scikit-learn, and the true features reach the ceiling."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from mmnfn.evaluation import EncodingMetric, fit_encoding_model, pearson_r
from mmnfn.structures import SubjectGeometry


def test_pearson_r_against_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 5)), rng.normal(size=(30, 5))
    expected = [scipy.stats.pearsonr(x, y)[0] for x, y in zip(a.T, b.T)]
    assert np.allclose(pearson_r(a, b), expected, atol=1e-12)
    b[:, 2] = 1
    r = pearson_r(a, b)
    assert np.isnan(r[2]) and np.isfinite(np.delete(r, 2)).all()


@pytest.mark.parametrize('features', [8, 120])
def test_ridge_against_scikit_learn(features):
    """With a single candidate the fit is ordinary ridge, in primal and in kernel form."""
    rng = np.random.default_rng(1)
    x, x_test = rng.normal(2, 3, (80, features)), rng.normal(2, 3, (20, features))
    weights = rng.normal(size=(features, 4))
    y, y_test = x @ weights + rng.normal(size=(80, 4)), x_test @ weights
    y = y - y.mean(0)
    result = fit_encoding_model(x, y, x_test, y_test, alphas=[7.0])
    scaler = StandardScaler().fit(x)
    expected = Ridge(alpha=7.0, fit_intercept=False).fit(scaler.transform(x), y).predict(scaler.transform(x_test))
    assert np.allclose(result.prediction, expected, rtol=1e-3, atol=1e-3)


def test_true_features_reach_the_ceiling_and_noise_does_not():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(700, 10))
    signal = features @ rng.normal(size=(10, 60))
    signal /= signal.std(0)
    ncsnr = rng.uniform(0.4, 1.5, 60)
    responses = signal + rng.normal(size=signal.shape) / ncsnr
    ceiling = np.sqrt(ncsnr**2 / (ncsnr**2 + 1))
    result = fit_encoding_model(features[:500], responses[:500], features[500:], responses[500:])
    assert abs(result.r.mean() - ceiling.mean()) < 3 * result.standard_error
    assert 0.002 < result.standard_error < 0.05
    null = fit_encoding_model(rng.normal(size=(500, 10)), responses[:500], features[500:], responses[500:])
    assert abs(null.r.mean()) < 0.25 * result.r.mean()


def test_metric():
    rng = np.random.default_rng(3)
    geometry = SubjectGeometry('subj04', ('streams', 'floc-faces'), (3, 2), torch.zeros(5, 3))
    weights = rng.normal(size=(6, 5))
    metric = EncodingMetric()
    for part, count in (('train', 60), ('test', 30)):
        features = rng.normal(size=(count, 6))
        responses = features @ weights
        batch = dict(
            geometry=geometry,
            responses=torch.tensor(responses),
            split=[part] * count,
            noise_ceiling=torch.tensor([64.0, 64.0, 64.0, 64.0, 1.0]),
        )
        start = 0 if part == 'train' else 1000
        metric.process(batch, [dict(features=torch.tensor(f), image_id=start + i) for i, f in enumerate(features)])
    figures = metric.evaluate(90)
    assert figures['encoding/pcc'] > 0.97 and figures['encoding/subj04_pcc'] == figures['encoding/pcc']
    assert figures['encoding/pcc_normalized'] == pytest.approx(figures['encoding/pcc'] / 0.8, rel=0.02)
    assert {'encoding/pcc_roi_streams', 'encoding/pcc_roi_floc-faces', 'encoding/pcc_se'} <= set(figures)


def test_too_few_images():
    with pytest.raises(ValueError, match='found 4 and 5'):
        fit_encoding_model(np.ones((4, 2)), np.ones((4, 2)), np.ones((5, 2)), np.ones((5, 2)))
