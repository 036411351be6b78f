"""``verify_store`` passes good stores, and names what does not agree."""

import shutil

import h5py
import numpy as np
import pytest
from nsd_damage import betas, gone, put, volume
from nsd_tree import CLASSES, change_design, to_nifti

from mmnfn.nsd import NSDLayout, ROIStore
from mmnfn.nsd.check import verify_store
from mmnfn.nsd.preparation import prepare_subject


@pytest.fixture(scope='module')
def store(tiny, tmp_path_factory):
    """The store of subj01, 25 voxels and 3 sessions. Leave it as it is."""
    return prepare_subject(tiny, tmp_path_factory.mktemp('store'), 'subj01', CLASSES, progress=False)


GOOD = [
    (False, 'float32', {}),
    (False, 'float32', dict(max_sessions=2, trials=True)),
    (True, 'float16', dict(normalization='none', max_sessions=1)),
]


@pytest.mark.parametrize('nifti, dtype, options', GOOD)
def test_good_stores_pass(tree, tmp_path, nifti, dtype, options):
    if nifti:
        to_nifti(tree, 'subj01')
    path = prepare_subject(tree, tmp_path, 'subj01', CLASSES, dtype=dtype, progress=False, **options)
    for voxels, compared in ((7, 7), (1000, 25)):
        count, largest = verify_store(tree, path, voxels)
        assert count == compared and largest <= dict(float32=2e-5, float16=1e-3)[dtype]
    assert largest > 0
    gone(tree.valid_file('subj01', 1))
    assert verify_store(tree, path, 25)[0] == 25


@pytest.mark.parametrize('value', [0.001, np.nan])
def test_one_response_is_enough(tiny, store, tmp_path, value):
    path = shutil.copy(store, tmp_path)
    with h5py.File(path, 'a') as file:
        file['responses'][33, 20] += value
    place, image = ROIStore(store).location['voxel'][20].tolist(), ROIStore(store).image_id[33]
    named = rf'subj01.h5: voxel \[{", ".join(map(str, place))}\], 73k id {image} \(0-based'
    with pytest.raises(ValueError, match=named):
        verify_store(tiny, path, 25)


def one_beta(tree, place):
    betas(tree.beta_file('subj01', 2), lambda values: put(values, (*place, 400), values[(*place, 400)] + 300))
    return rf'subj01.h5: voxel \[{", ".join(map(str, place))}\], 73k id'


def one_valid(tree, place):
    volume(tree.valid_file('subj01', 2), lambda values: put(values, place, 1 - values[place]))
    return rf'valid_session02.nii.gz and the betas of session 2 disagree whether voxel \[{" +".join(map(str, place))}\]'


def another_design(tree, place):
    change_design(tree, masterordering=np.roll(np.arange(2250) % 750 + 1, 7).astype(np.uint16)[None])
    return 'subj01.h5: voxel'


@pytest.mark.parametrize('change', [one_beta, one_valid, another_design])
def test_a_changed_release_is_noticed(store, tree, change):
    named = change(tree, tuple(ROIStore(store).location['voxel'][17].tolist()))
    with pytest.raises(ValueError, match=named):
        verify_store(tree, store, 25)


def test_other_betas_are_named(tiny, store):
    with pytest.raises(ValueError, match='subj01.h5 holds b3 betas in func1pt8mm, but .* for b2'):
        verify_store(NSDLayout(tiny.root, 'b2'), store, 1)
