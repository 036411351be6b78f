"""Pearson's r against SciPy, ridge against scikit-learn and loops, and the ceiling."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from mmnfn.evaluation import bootstrap_r, draw_images, fit_encoding_model, pearson_r, ridge as module


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_pearson_r_is_scipys(dtype, monkeypatch):
    """Over several blocks of voxels, despite large means."""
    monkeypatch.setattr(module, 'BLOCK', 4)
    rng = np.random.default_rng(0)
    a = (rng.normal(size=(300, 11)) + 50).astype(dtype)
    b = (a + rng.normal(size=a.shape) * np.arange(11) - 80).astype(dtype)
    expected = [scipy.stats.pearsonr(x.astype(float), y.astype(float))[0] for x, y in zip(a.T, b.T)]
    assert np.allclose(pearson_r(a, b), expected, rtol=0, atol=1e-6)
    a[:, 1], b[:, 2] = 0.1, 1 / 3  # constant, although their means are not quite the constants
    assert np.flatnonzero(np.isnan(pearson_r(a, b))).tolist() == [1, 2]


def test_bootstrap_equals_a_loop_over_drawn_images(monkeypatch):
    """Voxel 3 is constant; voxel 0 responds to one image and prediction 1 to two, which some resamplings lack."""
    monkeypatch.setattr(module, 'BLOCK', 2)
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(12, 4)), rng.normal(size=(12, 4))
    b[:, 2], b[:, 3] = a[:, 2] + b[:, 2], 0.1
    b[:, 0] = 0.1 + (np.arange(12) == 4)
    a[:, 1] = 1 / 3 + (np.arange(12) < 2)
    draws = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), 200)
    expected = np.full((200, 4), np.nan)
    for i, n in enumerate(draws):
        for v in range(4):
            x, y = np.repeat(a[:, v], n), np.repeat(b[:, v], n)
            if np.ptp(x) > 0 and np.ptp(y) > 0:
                expected[i, v] = scipy.stats.pearsonr(x, y)[0]
    missing = [200 * (11 / 12) ** 12, 200 * (10 / 12) ** 12, 0, 200]
    assert np.isnan(expected).sum(0).tolist() == pytest.approx(missing, abs=20)
    assert np.allclose(bootstrap_r(a, b, draw_images(len(a), 200, 7)), expected, atol=1e-6, equal_nan=True)


def data(n=80, m=20, features=8, voxels=4, seed=1, noise=1.0):
    rng = np.random.default_rng(seed)
    x, x_test = rng.normal(2, 3, (n, features)), rng.normal(2, 3, (m, features))
    weights = rng.normal(size=(features, voxels))
    y = x @ weights + noise * rng.normal(size=(n, voxels)) + 5
    return x, y, x_test, x_test @ weights + 5


@pytest.mark.parametrize('features', [8, 120])
def test_ridge_is_scikit_learns(features):
    """In primal and in kernel form, for responses with a mean."""
    x, y, x_test, y_test = data(features=features)
    result = fit_encoding_model(x, y, x_test, y_test, alphas=[7.0], bootstraps=2)
    scaler = StandardScaler().fit(x)
    expected = Ridge(alpha=7.0).fit(scaler.transform(x), y).predict(scaler.transform(x_test))
    assert np.allclose(result.prediction, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('features', [8, 120])
def test_features_that_never_vary_change_nothing(features):
    """Dead channels of a network are constant."""
    x, y, x_test, y_test = data(features=features)
    dead, dead_test = np.full((len(x), 2), 0.7), np.full((len(x_test), 2), 0.7)
    one, two = (
        fit_encoding_model(f, y, f_test, y_test, bootstraps=2).prediction
        for f, f_test in ((x, x_test), (np.concatenate([dead, x], 1), np.concatenate([dead_test, x_test], 1)))
    )
    assert np.isfinite(two).all() and np.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize('bands', [(12,), (90,), (4, 8), (60, 30)], ids=str)
def test_regularisation_is_chosen_for_each_voxel_by_generalised_cross_validation(monkeypatch, bands):
    """Against a loop over weights of the bands, candidates and voxels with hat matrices; primal and kernel form."""
    monkeypatch.setattr(module, 'BLOCK', 3)
    alphas = [1e-2, 1.0, 30.0, 1e3, 1e5]
    noise = np.array([0.1, 1, 3, 10, 30, 100, 300, 1000.0])
    features = sum(bands)
    x, y, x_test, y_test = data(n=60, features=features, voxels=8, noise=noise)
    result = fit_encoding_model(x, y, x_test, y_test, alphas=alphas, bands=bands, bootstraps=2)
    scaler = StandardScaler().fit(x)
    chosen, of_bands = set(), [slice(sum(bands[:k]), sum(bands[: k + 1])) for k in range(len(bands))]
    for voxel in range(8):
        centred, best = y[:, voxel] - y[:, voxel].mean(), (np.inf, None, None)
        for weights in module.band_weights(len(bands), 0):
            scale = np.ones(features)
            for band, weight in zip(of_bands, weights):
                scale[band] = np.sqrt(weight * features / (band.stop - band.start))
            z = scaler.transform(x) * scale
            for alpha in alphas:
                hat = z @ np.linalg.solve(z.T @ z + alpha * np.eye(features), z.T) + 1 / 60
                residual = centred - hat @ centred
                score = np.sum(residual**2) / np.trace(np.eye(60) - hat) ** 2
                best = min(best, (score, alpha, tuple(scale)))
        _, alpha, scale = best
        chosen.add((alpha, scale))
        model = Ridge(alpha=alpha).fit(scaler.transform(x) * scale, y[:, voxel])
        assert np.allclose(result.prediction[:, voxel], model.predict(scaler.transform(x_test) * scale), atol=1e-6)
    assert len(chosen) >= 3


def test_bands_help_where_one_of_them_is_noise():
    """Plain ridge must shrink ten features of signal and 300 of noise alike; among many bands the signal is found."""
    x, y, x_test, y_test = data(n=150, m=100, features=10, voxels=12)
    rng = np.random.default_rng(3)
    wide, wide_test = (np.concatenate([f, rng.normal(size=(len(f), 300))], 1) for f in (x, x_test))
    alone = fit_encoding_model(x, y, x_test, y_test, bootstraps=2).r.mean()
    plain, two, five = (
        fit_encoding_model(wide, y, wide_test, y_test, bands=bands, bootstraps=2).r.mean()
        for bands in (None, (10, 300), (10, 75, 75, 75, 75))
    )
    assert plain < alone - 0.05 and two == pytest.approx(alone, abs=2e-3) and five == pytest.approx(alone, abs=2e-3)
    with pytest.raises(ValueError, match=r'bands \(10, 3\) must add up to the 310 features'):
        fit_encoding_model(wide, y, wide_test, y_test, bands=(10, 3))


@pytest.mark.parametrize('bands', [None, (3, 2)])
def test_a_voxel_that_is_not_finite_affects_no_other(bands):
    x, y, x_test, y_test = data(n=60, m=20, features=5)
    whole = fit_encoding_model(x, y, x_test, y_test, bands=bands, bootstraps=2)
    y = np.array(y)
    y[7, 1] = np.nan
    part = fit_encoding_model(x, y, x_test, y_test, bands=bands, bootstraps=2)
    others = [0, 2, 3]
    np.testing.assert_allclose(part.r[others], whole.r[others], atol=1e-6)
    assert np.isnan(part.r[1]) and np.isnan(part.prediction[:, 1]).all() and not np.isnan(whole.r).any()


def test_unusable_data_is_named():
    """Weights with NaN give broken features; the eigendecomposition would only report that it did not converge."""
    x, y, x_test, y_test = data(n=10, m=3)
    assert fit_encoding_model(x, y, x_test, y_test, bootstraps=2).r.shape == (4,)
    for n, m in ((9, 3), (10, 2)):
        with pytest.raises(ValueError, match=f'at least 10 training and 3 test images, found {n} and {m}'):
            fit_encoding_model(x[:n], y[:n], x_test[:m], y_test[:m])
    x_test[[0, 2], 0] = np.nan, np.inf
    with pytest.raises(ValueError, match='the features of 2 of 3 test images are NaN or infinite'):
        fit_encoding_model(x, y, x_test, y_test)


def test_a_backend_that_is_not_there_is_named():
    x, y, x_test, y_test = data()
    with pytest.raises(ValueError, match="backend must be one of numpy, torch_cuda, but got 'jax'"):
        fit_encoding_model(x, y, x_test, y_test, backend='jax')
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="backend='torch_cuda' needs a GPU"):
            fit_encoding_model(x, y, x_test, y_test, backend='torch_cuda')
