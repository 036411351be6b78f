"""ncsnr and noise ceiling: NSD's formulas, and the estimate where the map is absent."""

import h5py
import nibabel as nib
import numpy as np
import pytest
from nsd_damage import gone
from nsd_tree import CLASSES, change_design, read_voxels, slow_store

from mmnfn.nsd import NSDLayout, ROIStore
from mmnfn.nsd.noise_ceiling import estimate_ncsnr, mixed_noise_ceiling
from mmnfn.nsd.preparation import prepare_subject


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


@pytest.mark.parametrize('normalization, sessions', [('train', 3), ('none', 2), ('train', 1)])
def test_the_estimate_is_that_of_a_plain_loop(tiny, tree, tmp_path, sessions, normalization):
    """Whatever the normalisation of the responses: the estimate has its own."""
    gone(tree.ncsnr_file('subj01'))
    options = dict(max_sessions=sessions, normalization=normalization)
    store = ROIStore(prepare_subject(tree, tmp_path, 'subj01', CLASSES, progress=False, **options))
    slow = slow_store(tiny.root, 'subj01', CLASSES, sessions, normalization)
    files = [tiny.beta_file('subj01', k + 1) for k in range(sessions)]
    raw = np.concatenate([np.stack(read_voxels(file, slow['voxel'].tolist())) for file in files], 1)
    expected, images = formula(raw, slow['trials'][1])
    assert np.allclose(store.ncsnr, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert np.isnan(expected).any() and (expected > 0.1).any() and images > 20
    assert store.attributes['ncsnr_source'] == f'estimated from {images} images shown three times'
    ceiling = 100 * expected**2 / (expected**2 + np.mean(1 / slow['repeats'][slow['split'] == b'test']))
    assert np.allclose(store.noise_ceiling, ceiling, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_the_estimate_is_close_to_map_and_truth(world, tmp_path):
    """Made as if the map were not there."""
    layout = NSDLayout(world / 'nsd')
    volume = np.asarray(nib.load(layout.ncsnr_file('subj01')).dataobj)
    layout.ncsnr_file = lambda subject: tmp_path / 'nothing'
    store = ROIStore(prepare_subject(layout, tmp_path / 'store', 'subj01', progress=False))
    assert store.attributes['ncsnr_source'].startswith('estimated from ')
    assert np.allclose(store.ncsnr, volume[tuple(store.location['voxel'].T)], atol=1e-4) and len(store.ncsnr) > 500
    with h5py.File(world / 'truth.h5') as truth:
        group = truth['subj01']
        position = {tuple(v): k for k, v in enumerate(group['voxel'][()])}
        order = np.asarray([position[tuple(v)] for v in store.location['voxel']])
        ncsnr = group['ncsnr'][()][order]
        good = (~group['invalid'][()].any(0) & (group['deviation'][()] < 20))[order]
    assert np.abs(store.ncsnr - ncsnr)[good].mean() < 0.05 and abs((store.ncsnr - ncsnr)[good].mean()) < 0.02
    assert np.corrcoef(store.ncsnr[good], ncsnr[good])[0, 1] > 0.95


def test_no_estimate_without_images_shown_three_times(tree, tmp_path):
    change_design(tree, masterordering=np.resize(np.arange(750) + 1, 2250).astype(np.uint16)[None])
    gone(tree.responses_file('subj01'))
    gone(tree.ncsnr_file('subj01'))
    with pytest.raises(ValueError, match='ncsnr.nii.gz does not exist, and no image was shown three times in the 2'):
        prepare_subject(tree, tmp_path, 'subj01', CLASSES, max_sessions=2, progress=False)
    assert not list(tmp_path.glob('subj*'))


def test_known_values_of_the_formulas():
    """One image that varies by 1 among its repeats, one by 0; and a voxel without data in one of them."""
    repeats = np.zeros((2, 3, 3))
    repeats[0, :, :2] = [[-1], [0], [1]]
    repeats[1, 1, 1] = np.nan
    repeats[:, 0, 2] = np.nan
    assert np.allclose(estimate_ncsnr(repeats), [1, 0, np.nan], equal_nan=True)
    mixed = 100 * 0.5**2 / (0.5**2 + (2 / 3 + 1 / 2 + 3 / 1) / 6)
    for ncsnr, counts, percent in ((1, [1], 50), (1, [3], 75), (0.5, [3, 2, 1, 1, 3, 1], mixed), (0, [2], 0)):
        assert mixed_noise_ceiling(np.asarray([ncsnr]), np.asarray(counts)) == pytest.approx(percent)
    assert np.isnan(mixed_noise_ceiling(np.asarray([np.nan]), np.asarray([1, 3]))).all()
