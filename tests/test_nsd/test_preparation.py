"""The ROI store against slow loops over the release, and against the truth of the simulated world."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from nsd_tree import CLASSES, STIMULI, difference, slow_store, to_nifti, write_tree
from same import contents

from mmnfn.nsd import NSDLayout, ROIStore, preparation
from mmnfn.nsd.design import read_design
from mmnfn.nsd.preparation import prepare_subject


def make(layout, store, subject='subj01', **options):
    return prepare_subject(layout, store, subject, **{**dict(roi_classes=CLASSES, progress=False), **options})


WAYS = [
    dict(),
    dict(normalization='all'),
    dict(normalization='none'),
    dict(roi_classes=[*CLASSES[::-1], 'nsdgeneral']),
    dict(roi_classes=['floc-words'], max_sessions=2),
]


@pytest.mark.parametrize('nifti, way', [*((False, way) for way in WAYS), (True, WAYS[0])], ids=str)
def test_a_store_is_that_of_a_slow_loop(tree, tmp_path, nifti, way):
    if nifti:
        to_nifti(tree, 'subj01')
    slow = slow_store(
        tree.root,
        'subj01',
        way.get('roi_classes', CLASSES),
        way.get('max_sessions'),
        way.get('normalization', 'train'),
    )
    assert difference(make(tree, tmp_path, **way), slow) == ''


def test_single_trials_are_those_of_a_slow_loop(tiny, tmp_path):
    store, (trials, rows) = ROIStore(make(tiny, tmp_path, trials=True)), slow_store(tiny.root, 'subj01')['trials']
    assert np.allclose(store.trial_responses, trials, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert (store.trial_row == rows).all() and (store.trial_session == np.arange(2250) // 750 + 1).all()
    with pytest.raises(ValueError, match='holds no single trials. Make it again with .*--trials'):
        ROIStore(make(tiny, tmp_path)).trial_responses  # noqa: B018


def test_blocks_do_not_matter(tiny, tmp_path, monkeypatch):
    whole = contents(make(tiny, tmp_path / 'whole'))
    monkeypatch.setattr(preparation, 'VOXELS_PER_BLOCK', 8)
    assert contents(make(tiny, tmp_path / 'blocks')) == whole


def test_float16_is_the_nearest_to_float32(tiny, tmp_path):
    """HDF5 1.14 itself gets about one value in 2500 wrong by a factor of 2."""
    half, single = (ROIStore(make(tiny, tmp_path / d, dtype=d, trials=True)) for d in ('float16', 'float32'))
    for name in ('responses', 'trial_responses'):
        assert np.array_equal(getattr(half, name), getattr(single, name).astype(np.float16), equal_nan=True)


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


def test_images_seen_the_third_time_in_a_later_session_are_not_yet_seen_by_all(tmp_path):
    layout, seen = write_tree(tmp_path / 'nsd', sessions=(2, 2)), []
    for sessions in (1, 2):
        path = make(layout, tmp_path / f'{sessions}', max_sessions=sessions)
        slow = slow_store(layout.root, 'subj01', sessions=sessions)
        assert difference(path, slow) == ''
        seen.append(int(slow['seen_by_all'].sum()))
    assert 0 < seen[0] < seen[1]


def test_the_download_of_another_subject_changes_nothing(tree, tmp_path):
    before = contents(make(tree, tmp_path / 'before'))
    shutil.rmtree(tree.beta_dir('subj02'))
    after = make(tree, tmp_path / 'after')
    assert contents(after) == before and ROIStore(after).seen_by_all.any()


def test_a_file_that_is_no_store_of_this_version_is_named_and_replaced(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match='subj01.h5 does not exist. Make it with'):
        ROIStore(tmp_path / 'subj01.h5')
    path = make(tiny, tmp_path)
    whole = path.read_bytes()
    with h5py.File(path, 'a') as file:
        file.attrs['format_version'] = 1
    for content in (path.read_bytes(), whole[:-1], b'no store'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='subj01.h5 .*(version 1, expected|is no readable HDF5 file)'):
            ROIStore(path)
        assert difference(make(tiny, tmp_path), slow_store(tiny.root, 'subj01')) == ''
    with h5py.File(path, 'a') as file:
        del file['ncsnr']
    with pytest.raises(ValueError, match='subj01.h5 .* is damaged: .*ncsnr'):
        ROIStore(path)


def test_crops_of_one_photograph_are_known_by_the_first(tree, tmp_path):
    """Stimuli 2k and 2k + 1 are of one photograph; without a table, or with one photograph each, nothing is written."""
    own = make(tree, tmp_path / 'plain', 'subj02')
    assert (ROIStore(own).photo_id == ROIStore(own).image_id).all()
    design = read_design(tree.design_file)
    shared = np.isin(np.arange(STIMULI), design.own[0, : design.shared])
    # pairs within the shared stimuli and within the others, in the order of the table turned around
    number = np.where(shared, np.cumsum(shared), np.cumsum(~shared)) - 1
    coco = 10 * (number // 2) + 5 * shared
    table = pd.DataFrame(dict(cocoId=coco, cocoSplit='train2017', nsdId=np.arange(STIMULI)))[::-1]
    table.assign(cocoId=table.nsdId + 9).to_csv(tree.stim_info_file)
    with h5py.File(make(tree, tmp_path / 'distinct', 'subj02')) as file:
        assert 'photo_id' not in file
    table.to_csv(tree.stim_info_file)
    store = ROIStore(make(tree, tmp_path / 'plain', 'subj02'))
    first = {c: i for i, c in reversed(list(enumerate(coco.tolist())))}
    assert store.photo_id.tolist() == [first[coco[i]] for i in store.image_id]
    assert (store.photo_id != store.image_id).any()
    # one training image cut from the photograph of a test image
    test = np.flatnonzero(shared)
    table.loc[np.flatnonzero(~shared)[5], 'cocoId'] = coco[test[0]]
    table.to_csv(tree.stim_info_file)
    named = f'nsd_stim_info_merged.csv: 1 photograph.*COCO id {coco[test[0]]}, .*shared.*Simulate the world again'
    with pytest.raises(ValueError, match=named):
        make(tree, tmp_path / 'mixed', 'subj02')
    assert not (tmp_path / 'mixed').exists()


def test_wrong_release_trees_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere does not exist'):
        NSDLayout(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no NSD release tree'):
        NSDLayout(tmp_path)
    (tmp_path / 'nsddata').mkdir()
    with pytest.raises(ValueError, match="beta_version is 'b7'"):
        NSDLayout(tmp_path, 'b7')
    with pytest.raises(FileNotFoundError, match='holds no b3 betas of any subject'):
        preparation.prepare(tmp_path, tmp_path / 'store')
