"""Encoding models: Pearson r against scipy, ridge against scikit-learn, and the ceiling."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler

from mmnfn.evaluation import bootstrap_r, draw_images, fit_encoding_model, pearson_r, ridge as module


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_pearson_r_is_scipys(dtype, monkeypatch):
    """To 1e-6, over several blocks of voxels; large means do not matter."""
    monkeypatch.setattr(module, 'BLOCK', 4)
    rng = np.random.default_rng(0)
    a = (rng.normal(size=(300, 11)) + 50).astype(dtype)
    b = (a + rng.normal(size=a.shape) * np.arange(11) - 80).astype(dtype)
    expected = [scipy.stats.pearsonr(x.astype(float), y.astype(float))[0] for x, y in zip(a.T, b.T)]
    assert np.allclose(pearson_r(a, b), expected, rtol=0, atol=1e-6)


def test_constant_voxels_are_nan():
    """Also where the mean of a constant is not quite the constant."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    b[:, 1] = 0.1
    a[:, 2] = 1 / 3
    assert list(np.isnan(pearson_r(a, b))) == [False, True, True]
    assert list(np.isnan(bootstrap_r(a, b, draw_images(len(a), 20, 0))).all(0)) == [False, True, True]
    assert np.isfinite(bootstrap_r(a, b, draw_images(len(a), 20, 0))[:, 0]).all()


def test_bootstrap_is_that_of_drawn_images(monkeypatch):
    monkeypatch.setattr(module, 'BLOCK', 2)
    rng = np.random.default_rng(1)
    a = rng.normal(size=(12, 5)) + 3
    b = a + rng.normal(size=a.shape)
    draws = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), 30)
    expected = [[scipy.stats.pearsonr(*(np.repeat(x[:, v], n) for x in (a, b)))[0] for v in range(5)] for n in draws]
    assert np.allclose(bootstrap_r(a, b, draw_images(len(a), 30, 7)), expected, atol=1e-6)


def test_what_is_constant_in_a_drawing_has_no_correlation_there():
    """A voxel that responds to one image, and a prediction of two: a third of the drawings lack the image."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    b[:, 0] = 0.1 + (np.arange(12) == 4)
    a[:, 1] = 1 / 3 + (np.arange(12) < 2)
    draws = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), 200)
    expected = np.full((200, 3), np.nan)
    for i, n in enumerate(draws):
        for v in range(3):
            x, y = np.repeat(a[:, v], n), np.repeat(b[:, v], n)
            if np.ptp(x) > 0 and np.ptp(y) > 0:
                expected[i, v] = scipy.stats.pearsonr(x, y)[0]
    assert np.isnan(expected).sum(0).tolist() == pytest.approx(
        [200 * (11 / 12) ** 12, 200 * (10 / 12) ** 12, 0], abs=20
    )
    assert np.allclose(bootstrap_r(a, b, draw_images(len(a), 200, 7)), expected, atol=1e-6, equal_nan=True)


def data(n=80, m=20, features=8, voxels=4, seed=1, noise=1.0):
    rng = np.random.default_rng(seed)
    x, x_test = rng.normal(2, 3, (n, features)), rng.normal(2, 3, (m, features))
    weights = rng.normal(size=(features, voxels))
    y = x @ weights + noise * rng.normal(size=(n, voxels)) + 5
    return x, y, x_test, x_test @ weights + 5


@pytest.mark.parametrize('features', [8, 120])
def test_ridge_is_scikit_learns(features):
    """In primal and in kernel form, to 1e-6; responses with a mean."""
    x, y, x_test, y_test = data(features=features)
    result = fit_encoding_model(x, y, x_test, y_test, alphas=[7.0], bootstraps=2)
    scaler = StandardScaler().fit(x)
    expected = Ridge(alpha=7.0).fit(scaler.transform(x), y).predict(scaler.transform(x_test))
    assert np.allclose(result.prediction, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('features', [8, 120])
def test_features_that_never_vary_change_nothing(features):
    """As dead channels of a network: constant in the training images, or in all."""
    x, y, x_test, y_test = data(features=features)
    dead, dead_test = np.full((len(x), 2), 0.7), np.full((len(x_test), 2), 0.7)
    one, two = (
        fit_encoding_model(f, y, f_test, y_test, bootstraps=2).prediction
        for f, f_test in ((x, x_test), (np.concatenate([dead, x], 1), np.concatenate([dead_test, x_test], 1)))
    )
    assert np.isfinite(two).all() and np.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize('features', [12, 90], ids=['primal', 'kernel'])
def test_regularisation_is_chosen_for_each_voxel_by_generalised_cross_validation(monkeypatch, features):
    """Against hat matrices in a loop over candidates and voxels, with blocks of voxels."""
    monkeypatch.setattr(module, 'BLOCK', 3)
    alphas = [1e-2, 1.0, 30.0, 1e3, 1e5]
    noise = np.array([0.1, 1, 3, 10, 30, 100, 300, 1000.0])
    x, y, x_test, y_test = data(n=60, features=features, voxels=8, noise=noise)
    result = fit_encoding_model(x, y, x_test, y_test, alphas=alphas, bootstraps=2)
    scaler = StandardScaler().fit(x)
    z, z_test, centred = scaler.transform(x), scaler.transform(x_test), y - y.mean(0)
    chosen = []
    for voxel in range(8):
        scores = []
        for alpha in alphas:
            hat = z @ np.linalg.solve(z.T @ z + alpha * np.eye(features), z.T) + 1 / 60
            residual = centred[:, voxel] - hat @ centred[:, voxel]
            scores.append(np.sum(residual**2) / np.trace(np.eye(60) - hat) ** 2)
        alpha = alphas[int(np.argmin(scores))]
        chosen.append(alpha)
        expected = Ridge(alpha=alpha).fit(z, y[:, voxel]).predict(z_test)
        assert np.allclose(result.prediction[:, voxel], expected, atol=1e-6)
    assert len(set(chosen)) >= 3


@pytest.mark.parametrize('features', [40, 400], ids=['primal', 'kernel'])
def test_the_choice_is_as_good_as_leave_one_out(features):
    """scikit-learn's RidgeCV leaves one image out at a time: the predictions of new images are as good."""
    x, y, x_test, y_test = data(n=200, m=200, features=features, voxels=60, noise=np.geomspace(1, 300, 60))
    alphas = np.logspace(-1, 6, 15)
    result = fit_encoding_model(x.astype(np.float32), y.astype(np.float32), x_test, y_test, bootstraps=2)
    scaler = StandardScaler().fit(x)
    loo = RidgeCV(alphas=alphas, alpha_per_target=True).fit(scaler.transform(x), y)
    r = pearson_r(loo.predict(scaler.transform(x_test)), y_test)
    assert abs(result.r.mean() - r.mean()) < 0.01 and r.mean() > 0.3
    assert np.median(np.abs(result.r - r)) < 0.005


def test_bands_help_where_one_of_them_is_noise():
    """Ten features of signal and 300 of noise: plain ridge must shrink both alike."""
    x, y, x_test, y_test = data(n=150, m=100, features=10, voxels=12)
    rng = np.random.default_rng(3)
    wide, wide_test = (np.concatenate([f, rng.normal(size=(len(f), 300))], 1) for f in (x, x_test))
    plain, banded = (fit_encoding_model(wide, y, wide_test, y_test, bands=b, bootstraps=2) for b in (None, (10, 300)))
    assert banded.r.mean() > plain.r.mean() + 0.05 and banded.r.mean() > 0.95
    with pytest.raises(ValueError, match=r'bands \(10, 3\) must add up to the 310 features'):
        fit_encoding_model(wide, y, wide_test, y_test, bands=(10, 3))


@pytest.mark.parametrize('bands', [None, (3, 2)])
def test_a_voxel_that_is_not_finite_takes_no_other_along(bands):
    x, y, x_test, y_test = data(n=60, m=20, features=5)
    whole = fit_encoding_model(x, y, x_test, y_test, bands=bands, bootstraps=2)
    y = np.array(y)
    y[7, 1] = np.nan
    part = fit_encoding_model(x, y, x_test, y_test, bands=bands, bootstraps=2)
    others = [0, 2, 3]
    np.testing.assert_allclose(part.r[others], whole.r[others], atol=1e-6)
    assert np.isnan(part.r[1]) and np.isnan(part.prediction[:, 1]).all() and not np.isnan(whole.r).any()


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


def test_too_few_images():
    x, y, x_test, y_test = data(n=10, m=3)
    assert fit_encoding_model(x, y, x_test, y_test, bootstraps=2).r.shape == (4,)
    for n, m in ((9, 3), (10, 2), (4, 5)):
        with pytest.raises(ValueError, match=f'at least 10 training and 3 test images, found {n} and {m}'):
            fit_encoding_model(np.ones((n, 2)), np.ones((n, 2)), np.ones((m, 2)), np.ones((m, 2)))


def test_features_that_are_not_finite_are_named():
    """As weights with NaN give them; the eigendecomposition would only say that it did not converge."""
    x, y, x_test, y_test = data(n=20, m=5)
    for value in (np.nan, np.inf):
        broken = np.array(x_test)
        broken[[1, 3], 0] = value
        with pytest.raises(ValueError, match='the features of 2 of 5 test images are NaN or infinite'):
            fit_encoding_model(x, y, broken, y_test)


@pytest.mark.parametrize('bands', [None, (20, 25)])
def test_torch_gives_what_numpy_gives(bands):
    """The path of ``'torch_cuda'``, here on the CPU."""
    rng = np.random.default_rng(3)
    x, weights = rng.standard_normal((90, 45)), rng.standard_normal((45, 7))
    y = x @ weights + 3 * rng.standard_normal((90, 7))
    one, other = (
        fit_encoding_model(x[:60], y[:60], x[60:], y[60:], bands=bands, bootstraps=3, backend=backend)
        for backend in ('numpy', 'torch')
    )
    assert np.allclose(one.prediction, other.prediction, rtol=0, atol=1e-9) and one.r.mean() > 0.5
    with pytest.raises(ValueError, match="backend must be one of numpy, torch, torch_cuda, but got 'jax'"):
        fit_encoding_model(x[:60], y[:60], x[60:], y[60:], backend='jax')
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="backend='torch_cuda' needs a GPU"):
            fit_encoding_model(x[:60], y[:60], x[60:], y[60:], backend='torch_cuda')
