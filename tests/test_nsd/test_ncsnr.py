"""ncsnr where its map is absent: estimated from the images shown three times."""

import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest
from nsd_damage import betas
from nsd_tree import CLASSES, change_design, read_voxels, slow_store

from mmnfn.nsd import NSDLayout, ROIStore
from mmnfn.nsd.noise_ceiling import estimate_ncsnr, mixed_noise_ceiling
from mmnfn.nsd.preparation import prepare_subject


def without_map(layout, subject='subj01'):
    path = layout.beta_dir(subject) / 'ncsnr.nii.gz'
    path.unlink()
    return path


def formula(raw, rows):
    """ncsnr of the NSD data manual, voxel by voxel, from raw betas (voxels, trials) and the image of each trial."""
    images = [np.flatnonzero(rows == row) for row in np.unique(rows)]
    thrice = [trials for trials in images if len(trials) == 3]
    result = []
    for voxel in np.asarray(raw, float):
        z = np.empty_like(voxel)
        for start in range(0, len(voxel), 750):
            session = voxel[start : start + 750]
            has_data = session.std() > 0
            z[start : start + 750] = (session - session.mean()) / session.std(ddof=1) if has_data else np.nan
        variances = [np.var(z[trials], ddof=1) for trials in thrice]
        variances = [value for value in variances if not np.isnan(value)]
        noise = np.sqrt(np.mean(variances)) if variances else np.nan
        result.append(np.sqrt(max(0, 1 - noise**2)) / noise if variances else np.nan)
    return np.asarray(result), len(thrice)


def raw_betas(layout, subject, places, sessions):
    parts = [read_voxels(layout.beta_file(subject, k + 1), places) for k in range(sessions)]
    return np.concatenate([np.stack(part) for part in parts], 1)


@pytest.mark.filterwarnings('ignore:invalid value encountered')
@pytest.mark.parametrize('normalization', ['train', 'none'])
@pytest.mark.parametrize('sessions', [1, 2, 3])
def test_against_a_plain_loop(tiny, tree, tmp_path, sessions, normalization):
    """Whatever the normalisation of the responses: the estimate has its own."""
    without_map(tree)
    options = dict(max_sessions=sessions, normalization=normalization)
    store = ROIStore(prepare_subject(tree, tmp_path, 'subj01', CLASSES, progress=False, **options))
    slow = slow_store(tiny.root, 'subj01', CLASSES, sessions, normalization)
    raw = raw_betas(tiny, 'subj01', slow['voxel'].tolist(), sessions)
    expected, images = formula(raw, slow['trials'][1])
    assert np.allclose(store.ncsnr, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert np.isnan(expected).any() and (expected > 0.1).any() and images > 20
    assert store.attributes['ncsnr_source'] == f'estimated from {images} images shown three times'
    repeats = slow['repeats'][slow['split'] == b'test']
    ceiling = 100 * expected**2 / (expected**2 + np.mean(1 / repeats))
    assert np.allclose(store.noise_ceiling, ceiling, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert (slow['repeats'] == 3).sum() == images


def test_blocks_do_not_matter(tree, tmp_path, monkeypatch):
    without_map(tree)
    stores = []
    for size in (2048, 8, 24):
        monkeypatch.setattr('mmnfn.nsd.preparation.VOXELS_PER_BLOCK', size)
        monkeypatch.setattr('mmnfn.nsd.preparation.VOXELS_PER_BLOCK', size)
        stores.append(ROIStore(prepare_subject(tree, tmp_path / str(size), 'subj01', CLASSES, progress=False)))
    for store in stores[1:]:
        assert np.array_equal(store.ncsnr, stores[0].ncsnr, equal_nan=True)
        assert (store.responses == stores[0].responses).all()
        for name in ('invalid_voxel_sessions', 'saturated_values'):
            assert store.attributes[name] == stores[0].attributes[name] > 0


@pytest.fixture(scope='module')
def estimated(world, tmp_path_factory):
    """The store of subj01 of the simulated world, made without its map, and that map at its voxels."""
    root = tmp_path_factory.mktemp('estimated')
    ignored = shutil.ignore_patterns('subj02', 'nsd_stimuli*', 'betas_session*.nii.gz')
    layout = NSDLayout(shutil.copytree(world / 'nsd', root / 'nsd', ignore=ignored))
    volume = np.asarray(nib.load(layout.beta_dir('subj01') / 'ncsnr.nii.gz').dataobj)
    without_map(layout)
    store = ROIStore(prepare_subject(layout, root / 'store', 'subj01', progress=False))
    return store, volume[tuple(store.location['voxel'].T)]


def test_close_to_the_file(estimated):
    store, from_file = estimated
    assert store.attributes['ncsnr_source'].startswith('estimated from ')
    assert np.allclose(store.ncsnr, from_file, atol=1e-4) and len(from_file) > 500


def test_close_to_the_truth(world, estimated):
    store, _ = estimated
    with h5py.File(world / 'truth.h5') as truth:
        group = truth['subj01']
        position = {tuple(v): k for k, v in enumerate(group['voxel'][()])}
        order = np.asarray([position[tuple(v)] for v in store.location['voxel']])
        ncsnr = group['ncsnr'][()][order]
        good = (~group['invalid'][()].any(0) & (group['deviation'][()] < 20))[order]
    assert np.abs(store.ncsnr - ncsnr)[good].mean() < 0.05
    assert np.corrcoef(store.ncsnr[good], ncsnr[good])[0, 1] > 0.95
    assert abs((store.ncsnr - ncsnr)[good].mean()) < 0.02


def test_no_image_three_times(tree, tmp_path):
    change_design(tree, masterordering=np.resize(np.arange(750) + 1, 2250).astype(np.uint16)[None])
    tree.responses_file('subj01').unlink()
    named = without_map(tree)
    with pytest.raises(ValueError, match=f'{named.name} does not exist, and no image was shown three times in the'):
        prepare_subject(tree, tmp_path, 'subj01', CLASSES, max_sessions=2, progress=False)
    assert not (tmp_path / 'subj01.h5').exists()
    store = ROIStore(prepare_subject(tree, tmp_path, 'subj01', CLASSES, progress=False))
    assert store.attributes['ncsnr_source'] == 'estimated from 750 images shown three times'


def test_nothing_but_noise_gives_zero(tree, tmp_path):
    """Where repeats differ more than images do, no signal is left."""
    rng = np.random.default_rng(0)
    for session in (1, 2, 3):
        betas(tree.beta_file('subj01', session), lambda b: rng.normal(0, 900, b.shape).astype(np.int16))
    without_map(tree)
    store = ROIStore(prepare_subject(tree, tmp_path, 'subj01', CLASSES, progress=False))
    assert (store.ncsnr == 0).any() and store.ncsnr.max() < 0.3 and store.noise_ceiling.max() < 30


def test_the_check_values_of_the_formula():
    """One image that varies by 1 among its repeats, one by 0; and a voxel without data in one of them."""
    repeats = np.zeros((2, 3, 3))
    repeats[0, :, :2] = [[-1], [0], [1]]
    repeats[1, 1, 1] = np.nan
    repeats[:, 0, 2] = np.nan
    assert np.allclose(estimate_ncsnr(repeats), [1, 0, np.nan], equal_nan=True)
    for ncsnr, counts, percent in ((1, [1], 50), (1, [3], 75), (0.5, [3, 3], 100 * 0.25 / (0.25 + 1 / 3)), (0, [2], 0)):
        assert mixed_noise_ceiling(np.asarray([ncsnr]), np.asarray(counts)) == pytest.approx(percent)
    assert np.isnan(mixed_noise_ceiling(np.asarray([np.nan]), np.asarray([1, 3]))).all()
