"""The ROI store against slow loops over the NIfTI files, and bad input."""

import shutil

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.stats
from nsd_tree import CLASSES, STIMULI

from mmnfn.nsd import NSDLayout, ROIStore, StimulusImages
from mmnfn.nsd.betas import normalize_session, read_betas
from mmnfn.nsd.design import read_design
from mmnfn.nsd.noise_ceiling import mixed_noise_ceiling
from mmnfn.nsd.preparation import prepare_subject
from mmnfn.nsd.release import ROI_CLASSES, parse_subjects
from mmnfn.nsd.release import select_voxels


@pytest.fixture(scope='module')
def layout(world):
    return NSDLayout(world / 'nsd')


def slow_store(layout, subject, sessions):
    """Responses by loops, from the NIfTI betas, the 1-based design file and the definition of the preprocessing."""
    mat = scipy.io.loadmat(layout.design_file)
    order, own = mat['masterordering'][0], mat['subjectim'][int(subject[-1]) - 1]
    shared = set(mat['sharedix'][0].tolist())
    masks = [np.asarray(nib.load(layout.roi_file(subject, c)).dataobj) > 0 for c in ROI_CLASSES]
    union = np.logical_or.reduce(masks)
    found = {}
    for session in range(sessions):
        betas = (
            np.asarray(nib.load(layout.beta_file(subject, session + 1, 'nii.gz')).dataobj)[union].astype(float) / 300
        )
        images = [int(own[order[750 * session + i] - 1]) for i in range(750)]
        for v in range(len(betas)):
            if not betas[v].any():
                betas[v] = np.nan
                continue
            train = [b for b, image in zip(betas[v], images) if image not in shared]
            betas[v] = (betas[v] - np.mean(train)) / np.std(train, ddof=1)
        for i, image in enumerate(images):
            found.setdefault(image - 1, []).append(betas[:, i])
    ids = sorted(found)
    with np.errstate(invalid='ignore'):
        responses = np.nan_to_num(np.stack([np.nanmean(found[i], axis=0) for i in ids]))
    return union, np.asarray(ids), responses, [len(found[i]) for i in ids], [i + 1 in shared for i in ids]


@pytest.mark.filterwarnings('ignore:Mean of empty slice')
@pytest.mark.parametrize('subject, sessions', [('subj01', 2), ('subj02', 1)])
def test_store_against_a_slow_loop(layout, store, subject, sessions):
    union, ids, responses, repeats, shared = slow_store(layout, subject, sessions)
    fast = ROIStore(store / f'{subject}.h5')
    assert (fast.image_id == ids).all() and (fast.repeats == repeats).all()
    assert ((fast.split == 'test') == shared).all()
    row = {tuple(v): k for k, v in enumerate(np.argwhere(union))}
    order = [row[tuple(v)] for v in fast.location['voxel']]
    assert sorted(order) == list(range(len(order)))  # the same voxels, each once
    assert np.allclose(fast.responses, responses[:, order], atol=2e-5)
    for name in ROI_CLASSES:
        mask = np.asarray(nib.load(layout.roi_file(subject, name)).dataobj) > 0
        assert sorted(map(tuple, fast.location['voxel'][fast.roi(name)])) == sorted(map(tuple, np.argwhere(mask)))


def test_coordinates_are_millimetres(layout, store):
    fast = ROIStore(store / 'subj01.h5')
    affine = nib.load(layout.roi_file('subj01', 'streams')).affine
    assert np.allclose(fast.coordinates, nib.affines.apply_affine(affine, fast.location['voxel']), atol=1e-4)


def test_responses_reach_the_true_ceiling(world, store):
    """Averages of three trials correlate with the noise-free response as the noise ceiling says."""
    fast = ROIStore(store / 'subj01.h5')
    with h5py.File(world / 'truth.h5') as truth:
        group = truth['subj01']
        assert (group['image_id'][()] == fast.image_id).all()
        position = {tuple(v): k for k, v in enumerate(group['voxel'][()])}
        order = np.asarray([position[tuple(v)] for v in fast.location['voxel']])
        signal, ncsnr = group['responses'][()][:, order], group['ncsnr'][()][order]
        good = (~group['invalid'][()].any(0) & (group['deviation'][()] < 20))[order]
    r = np.asarray([scipy.stats.pearsonr(a, b)[0] for a, b in zip(signal.T, fast.responses.T)])
    expected = np.sqrt(ncsnr**2 / (ncsnr**2 + 1 / 3))
    assert np.abs(r - expected)[good].mean() < 0.03
    assert np.median(fast.noise_ceiling[good]) == pytest.approx(100 * np.median(expected[good]) ** 2, rel=0.1)


def test_normalisation_does_not_see_test_trials():
    rng = np.random.default_rng(0)
    betas = rng.integers(-900, 900, (5, 750)).astype(np.int16)
    train = rng.random(750) < 0.9
    changed = betas.copy()
    changed[:, ~train] = 30000
    assert (normalize_session(betas, train)[:, train] == normalize_session(changed, train)[:, train]).all()
    z = normalize_session(betas, train)[:, train]
    assert np.allclose(z.mean(1), 0, atol=1e-5) and np.allclose(z.std(1, ddof=1), 1, atol=1e-4)
    assert np.allclose(normalize_session(betas, None), betas / 300)


def test_voxels_without_data_or_variance_are_nan():
    betas = np.ones((3, 750), np.int16)
    betas[0] = 0
    betas[1] = np.arange(750)
    z = normalize_session(betas, np.ones(750, bool))
    assert np.isnan(z[0]).all() and np.isfinite(z[1]).all() and np.isnan(z[2]).all()


def test_noise_ceiling_of_mixed_repeats():
    repeats = np.asarray([3] * 5 + [2] * 2 + [1] * 3)
    expected = 100 * 0.5**2 / (0.5**2 + (5 / 3 + 2 / 2 + 3 / 1) / 10)
    assert mixed_noise_ceiling(np.asarray([0.5]), repeats) == pytest.approx(expected)


def test_pictures(layout, store, world):
    small, raw = StimulusImages(store / 'images_32.h5'), StimulusImages(layout.stimuli_file)
    ids = ROIStore(store / 'subj02.h5').image_id
    for image_id in ids[::40]:
        assert small[image_id].shape == (32, 32, 3) and raw[image_id].shape == (64, 64, 3)
        shrunk = raw[image_id].reshape(32, 2, 32, 2, 3).mean((1, 3))
        assert np.abs(shrunk - small[image_id]).max() <= 1
    with pytest.raises(KeyError, match='950'):
        raw[950]
    missing = sorted(set(range(950)) - set(ids) - set(ROIStore(store / 'subj01.h5').image_id))
    with pytest.raises(KeyError, match=str(missing[0])):
        small[missing[0]]


def test_normalisation_option_and_first_sessions(layout, tmp_path):
    path = prepare_subject(layout, tmp_path, 'subj01', ['floc-faces'], 1, 'none', 'float16', progress=False)
    one = ROIStore(path)
    assert one.responses.dtype == np.float16 and one.roi_classes == ('floc-faces',)
    betas = read_betas(
        layout.beta_file('subj01', 1), one.location['voxel'], select_voxels(layout, 'subj01', ['floc-faces']).shape
    )
    trials = read_design(layout.design_file).trials('subj01', 1)[0]
    image = one.image_id[10]
    assert np.allclose(one.responses[10], betas[:, trials == image].mean(1) / 300, rtol=2e-3, atol=1e-3)
    assert len(one.image_id) == len(np.unique(trials))


def test_float16_is_the_nearest_to_float32(tiny, tmp_path):
    """HDF5 1.14 itself gets about one value in 2500 wrong by a factor of 2."""
    options = dict(roi_classes=CLASSES, trials=True, progress=False)
    for normalization in ('train', 'all', 'none'):
        half, single = (
            ROIStore(prepare_subject(tiny, tmp_path / d, 'subj01', normalization=normalization, dtype=d, **options))
            for d in ('float16', 'float32')
        )
        for name in ('responses', 'trial_responses'):
            expected = getattr(single, name).astype(np.float16)
            assert np.array_equal(getattr(half, name), expected, equal_nan=True)


def test_the_real_design(real_data, tmp_path):
    """Trial 0 of subject 1 is the 0-based image 46002; shared trials are where the data manual puts them."""
    folder = tmp_path / 'nsddata/experiments/nsd'
    folder.mkdir(parents=True)
    shutil.copy(real_data / 'nsd/nsd_expdesign.mat', folder)
    image_id, shared = read_design(NSDLayout(tmp_path).design_file).trials('subj01', 40)
    assert image_id[0] == 46002
    assert np.flatnonzero(shared)[:7].tolist() == [0, 28, 35, 44, 55, 56, 90]


def test_wrong_arguments(layout, tmp_path, world):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        NSDLayout(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no NSD release tree'):
        NSDLayout(tmp_path)
    with pytest.raises(ValueError, match='b7'):
        NSDLayout(world / 'nsd', 'b7')
    with pytest.raises(ValueError, match='subj09'):
        parse_subjects([9])
    with pytest.raises(ValueError, match='floc-dogs'):
        prepare_subject(layout, tmp_path, 'subj02', ['floc-dogs'], progress=False)
    with pytest.raises(ValueError, match='normalization'):
        prepare_subject(layout, tmp_path, 'subj02', normalization='some', progress=False)
    with pytest.raises(FileNotFoundError, match='subj05'):
        prepare_subject(layout, tmp_path, 'subj05', progress=False)


def test_an_unfinished_store_is_refused(store, tmp_path):
    path = tmp_path / 'subj01.h5'
    shutil.copy(store / 'subj01.h5', path)
    with h5py.File(path, 'a') as file:
        file.attrs['format_version'] = 1
    with pytest.raises(ValueError, match='not complete'):
        ROIStore(path)
    with pytest.raises(FileNotFoundError, match='subj03.h5'):
        ROIStore(store / 'subj03.h5')
    path.write_text('no HDF5')
    with pytest.raises(ValueError, match='subj01.h5'):
        ROIStore(path)


def test_stimulus_table_is_0_based(layout):
    info, behaviour = pd.read_csv(layout.stim_info_file), pd.read_csv(layout.responses_file('subj01'), sep='\t')
    first = behaviour['73KID'].iloc[0] - 1
    assert 1 in info.loc[info.nsdId == first, [f'subject1_rep{k}' for k in range(3)]].to_numpy()


def test_crops_of_one_photograph_are_known_by_the_first(tree, tmp_path):
    """Stimuli 2k and 2k + 1 are of one photograph; a store without a table, or of different ones, is as it was."""
    own = prepare_subject(tree, tmp_path / 'plain', 'subj02', ('streams',), progress=False)
    assert (ROIStore(own).photo_id == ROIStore(own).image_id).all()
    design = read_design(tree.design_file)
    shared = np.isin(np.arange(STIMULI), design.own[0, : design.shared])
    # pairs within the shared stimuli and within the others, in the order of the table turned around
    number = np.where(shared, np.cumsum(shared), np.cumsum(~shared)) - 1
    coco = 10 * (number // 2) + 5 * shared
    table = pd.DataFrame(dict(cocoId=coco, cocoSplit='train2017', nsdId=np.arange(STIMULI)))[::-1]
    tree.stim_info_file.parent.mkdir(parents=True, exist_ok=True)
    table.assign(cocoId=table.nsdId + 9).to_csv(tree.stim_info_file)
    again = prepare_subject(tree, tmp_path / 'distinct', 'subj02', ('streams',), progress=False)
    assert again.read_bytes() == own.read_bytes()
    table.to_csv(tree.stim_info_file)
    store = ROIStore(prepare_subject(tree, tmp_path / 'plain', 'subj02', ('streams',), progress=False))
    first = {c: i for i, c in reversed(list(enumerate(coco.tolist())))}
    assert store.photo_id.tolist() == [first[coco[i]] for i in store.image_id]
    assert (store.photo_id != store.image_id).any()
    # one of training among those of the test
    test = np.flatnonzero(shared)
    table.loc[np.flatnonzero(~shared)[5], 'cocoId'] = coco[test[0]]
    table.to_csv(tree.stim_info_file)
    named = f'nsd_stim_info_merged.csv: 1 photograph.*COCO id {coco[test[0]]}, .*shared.*Simulate the world again'
    with pytest.raises(ValueError, match=named):
        prepare_subject(tree, tmp_path / 'mixed', 'subj02', ('streams',), progress=False)
    assert not (tmp_path / 'mixed').exists()
