"""Encoding: Pearson r against scipy, ridge against scikit-learn, figures by hand, maps, and the ceiling."""

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler

from mmnfn.datasets import NSDDataset, NSDLayout, ROIStore
from mmnfn.evaluation import (
    EncodingMetric,
    bootstrap_r,
    encoding_model as module,
    fit_encoding_model,
    pearson_r,
    write_voxel_map,
)
from mmnfn.structures import SubjectGeometry


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
    assert list(np.isnan(bootstrap_r(a, b, 20, seed=0)).all(0)) == [False, True, True]
    assert np.isfinite(bootstrap_r(a, b, 20, seed=0)[:, 0]).all()


def test_bootstrap_is_that_of_drawn_images(monkeypatch):
    monkeypatch.setattr(module, 'BLOCK', 2)
    rng = np.random.default_rng(1)
    a = rng.normal(size=(12, 5)) + 3
    b = a + rng.normal(size=a.shape)
    draws = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), 30)
    expected = [[scipy.stats.pearsonr(*(np.repeat(x[:, v], n) for x in (a, b)))[0] for v in range(5)] for n in draws]
    assert np.allclose(bootstrap_r(a, b, 30, seed=7), expected, atol=1e-6)


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


ROIS = ('streams', 'floc-faces', 'floc-words')
SIZES = (3, 2, 0)
CEILING = torch.tensor([64.0, 64.0, 64.0, 36.0, 1.0])
NCSNR = torch.tensor([0.9, 0.9, 0.1, 0.9, 0.9])


def evaluate(features, responses, splits, subjects=('subj04',), batch=10, **settings):
    """Figures of the metric, without its prefix."""
    metric = EncodingMetric(**settings)
    for subject in subjects:
        geometry = SubjectGeometry(subject, ROIS, SIZES, torch.zeros(5, 3))
        for start in range(0, len(features), batch):
            part = slice(start, start + batch)
            samples = [
                dict(features=torch.tensor(f), bands=(2, 4), image_id=start + i) for i, f in enumerate(features[part])
            ]
            metric.process(
                dict(
                    geometry=geometry,
                    responses=torch.tensor(responses[part]),
                    split=splits[part],
                    noise_ceiling=CEILING,
                    ncsnr=NCSNR,
                ),
                samples,
            )
    return {key.partition('/')[2]: v for key, v in metric.evaluate(len(features) * len(subjects)).items()}


@pytest.fixture(scope='module')
def known():
    """Features, noisy responses whose last voxel is constant, and the split; test images in between."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(90, 6)).astype(np.float32)
    responses = (features @ rng.normal(size=(6, 5)) + rng.normal(size=(90, 5))).astype(np.float32)
    responses[:, 4] = 0.1
    return features, responses, ['test' if i % 3 == 0 else 'train' for i in range(90)]


def test_figures_by_hand(known):
    features, responses, splits = known
    figures = evaluate(*known, bootstraps=200)
    test = np.arange(90) % 3 == 0
    outcome = fit_encoding_model(features[~test], responses[~test], features[test], responses[test], bootstraps=200)
    r = outcome.r
    assert np.isnan(r[4]) and (r[:4] > 0.5).all()
    assert figures['pcc'] == pytest.approx(r[:4].mean()) == pytest.approx(figures['subj04_pcc'])
    assert figures['pcc_roi_streams'] == pytest.approx(r[:3].mean())
    assert figures['pcc_roi_floc-faces'] == pytest.approx(r[3])
    assert not [key for key in figures if 'floc-words' in key], 'the subject lacks it'
    assert figures['pcc_normalized'] == pytest.approx(np.mean([r[0] / 0.8, r[1] / 0.8, r[2] / 0.8, r[3] / 0.6]))
    assert figures['pcc_normalized_roi_floc-faces'] == pytest.approx(r[3] / 0.6)
    assert figures['pcc_reliable'] == pytest.approx(r[[0, 1, 3]].mean())
    assert figures['ceiling'] == figures['subj04_ceiling'] == pytest.approx((3 * 0.8 + 0.6) / 4), (
        'not of constant voxels'
    )
    assert figures['ceiling_roi_streams'] == pytest.approx(0.8)
    counts = {key: figures[key] for key in figures if key.startswith('voxels')}
    assert counts == dict(voxels=5, voxels_constant=1, voxels_normalized=4, voxels_reliable=3)
    low, high = np.percentile(outcome.resampled[:, :4].mean(1), (2.5, 97.5))
    assert (figures['pcc_low'], figures['pcc_high']) == (pytest.approx(low), pytest.approx(high))
    assert figures['pcc_low'] < figures['pcc'] < figures['pcc_high']
    assert figures['pcc_se'] == pytest.approx(outcome.standard_error)
    assert figures['pcc_roi_floc-faces_high'] == pytest.approx(np.percentile(outcome.resampled[:, 3], 97.5))


def test_subjects_count_alike_and_bands_are_those_of_the_model(known):
    figures = evaluate(*known, subjects=('subj04', 'subj07'), bootstraps=20)
    assert figures['subj04_pcc'] == figures['subj07_pcc'] == pytest.approx(figures['pcc'])
    assert figures['voxels'] == 10
    quiet = evaluate(*known, subjects=('subj04', 'subj07'), bootstraps=20, per_subject=False)
    assert not [key for key in quiet if key.startswith('subj')]
    banded = evaluate(*known, bootstraps=20, banded=True)
    assert banded['pcc'] != figures['pcc'] and banded['pcc'] == pytest.approx(figures['pcc'], abs=0.1)


def test_unknown_ceilings_leave_nothing_to_normalise(known, monkeypatch):
    monkeypatch.setitem(globals(), 'CEILING', CEILING * float('nan'))
    figures = evaluate(*known, bootstraps=20)
    assert figures['voxels_normalized'] == 0 and np.isnan(figures['pcc_normalized']) and np.isnan(figures['ceiling'])
    assert figures['pcc'] > 0.5


def test_maps_lie_where_the_voxels_do(world, store, tmp_path):
    """A voxel's value stands at its place in the ROI files' volume."""
    geometry, index = ROIStore(store / 'subj01.h5').geometry(('streams', 'floc-faces'), 'hilbert')
    values = np.arange(len(index), dtype=np.float32)
    path = write_voxel_map(ROIStore(store / 'subj01.h5'), geometry.coordinates, values, tmp_path / 'a/r.nii.gz')
    image = nib.load(path)
    reference = nib.load(NSDLayout(world / 'nsd').roi_file('subj01', 'streams'))
    assert image.shape == reference.shape and np.allclose(image.affine, reference.affine)
    volume, labels = image.get_fdata(), np.asarray(reference.dataobj)
    with h5py.File(store / 'subj01.h5') as file:
        voxel = file['voxel'][()][index]
    count = geometry.roi_sizes[0]
    assert (volume[tuple(voxel[count:].T)] == values[count:]).all()
    in_faces = {tuple(v) for v in voxel[count:]}
    assert all(volume[tuple(v)] == value for v, value in zip(voxel[:count], values) if tuple(v) not in in_faces)
    assert (labels[tuple(voxel[:count].T)] > 0).all()
    assert np.isnan(volume).sum() == volume.size - len({tuple(v) for v in voxel})
    with pytest.raises(ValueError, match='do not lie in the volume'):
        write_voxel_map(ROIStore(store / 'subj01.h5'), geometry.coordinates + 1, values, tmp_path / 'b.nii.gz')
    assert not (tmp_path / 'b.nii.gz').exists()


def test_metric_writes_maps(store, tmp_path):
    dataset = NSDDataset(store, [1], 'images_32.h5', split='all', roi_names=('floc-faces', 'streams'))
    samples = [dataset[i] for i in range(0, len(dataset), 4)]
    metric = EncodingMetric(bootstraps=5, map_dir=str(tmp_path), data_root=str(store))
    rng = np.random.default_rng(0)
    metric.process(
        dict(
            geometry=samples[0]['geometry'],
            responses=torch.tensor(np.stack([s['responses'] for s in samples])),
            split=[s['split'] for s in samples],
            noise_ceiling=samples[0]['noise_ceiling'],
            ncsnr=samples[0]['ncsnr'],
        ),
        [dict(features=torch.tensor(rng.normal(size=5)), image_id=s['image_id']) for s in samples],
    )
    figures = metric.evaluate(len(samples))
    volume = nib.load(tmp_path / 'subj01_pcc.nii.gz').get_fdata()
    assert abs(np.nanmean(volume)) < 0.5 and (~np.isnan(volume)).sum() <= figures['encoding/voxels']
    with pytest.raises(ValueError, match='map_dir is given without data_root'):
        EncodingMetric(map_dir=str(tmp_path))


def test_noise_free_signals_reach_the_simulated_worlds_ceiling(world, store):
    """Noise-free responses as features: r of each ROI is its true ceiling, within the bootstrap interval."""
    dataset = NSDDataset(store, [1], 'images_32.h5', split='all', roi_names=('prf-visualrois',))
    samples = [dataset[i] for i in range(len(dataset))]
    with h5py.File(world / 'truth.h5') as truth:
        group = truth['subj01']
        rows = np.searchsorted(group['image_id'][()], [s['image_id'] for s in samples])
        signal, true_ncsnr = group['responses'][()][rows], group['ncsnr'][()]
        place = {tuple(v): i for i, v in enumerate(group['voxel'][()])}
    own = ROIStore(store / 'subj01.h5')
    columns = np.asarray([place[tuple(v)] for v in own.location['voxel'][own.roi('prf-visualrois')]])
    responses = np.stack([s['responses'] for s in samples])
    test = np.asarray([s['split'] == 'test' for s in samples])
    r, resampled, ceilings = [], [], []
    for voxel in range(0, len(columns), 5):  # a voxel's own signal is the feature that explains it
        x, y = signal[:, columns[[voxel]]], responses[:, [voxel]]
        outcome = fit_encoding_model(x[~test], y[~test], x[test], y[test], bootstraps=200)
        ratio = true_ncsnr[columns[voxel]] ** 2
        r.append(outcome.r[0])
        resampled.append(outcome.resampled[:, 0])
        ceilings.append(np.sqrt(ratio / (ratio + 1 / 3)))
    low, high = np.percentile(np.nanmean(resampled, 0), (0.5, 99.5))
    assert low < np.mean(ceilings) < high
    assert np.corrcoef(r, ceilings)[0, 1] > 0.5


def test_too_few_images():
    with pytest.raises(ValueError, match='found 4 and 5'):
        fit_encoding_model(np.ones((4, 2)), np.ones((4, 2)), np.ones((5, 2)), np.ones((5, 2)))
