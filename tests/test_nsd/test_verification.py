"""``verify_store`` passes good stores, and names what does not agree."""

import importlib.util
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from nsd_damage import betas, cut, gone, group, hdf5, put, volume, write
from nsd_tree import CLASSES, change_design, to_nifti

from mmnfn.nsd import NSDLayout, ROIStore
from mmnfn.nsd.preparation import prepare_subject
from mmnfn.nsd.verification import verify_store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def store(tiny, tmp_path_factory):
    """The store of subj01, 25 voxels and 3 sessions. Leave it as it is."""
    return prepare_subject(tiny, tmp_path_factory.mktemp('store'), 'subj01', CLASSES, progress=False)


GOOD = [
    (False, 'float32', {}),
    (False, 'float32', dict(normalization='all')),
    (False, 'float32', dict(normalization='none')),
    (False, 'float32', dict(max_sessions=2, trials=True)),
    (False, 'float16', {}),
    (False, 'float16', dict(normalization='all')),
    (False, 'float16', dict(normalization='none')),
    (True, 'float32', {}),
    (True, 'float16', dict(normalization='none', max_sessions=1)),
]


@pytest.mark.parametrize('nifti, dtype, options', GOOD)
def test_good_stores_pass(tiny, tree, tmp_path, nifti, dtype, options):
    if nifti:
        to_nifti(tree, 'subj01')
    path = prepare_subject(tree if nifti else tiny, tmp_path, 'subj01', CLASSES, dtype=dtype, progress=False, **options)
    for voxels, compared in ((7, 7), (1000, 25)):
        count, largest = verify_store(tree, path, voxels)
        assert count == compared and largest <= dict(float32=2e-5, float16=1e-3)[dtype]
    assert largest > 0


def test_without_valid_maps(store, tree):
    for session in (1, 2, 3):
        tree.valid_file('subj01', session).unlink()
    assert verify_store(tree, store, 25)[0] == 25


def altered(store, folder, change):
    path = shutil.copy(store, folder)
    with h5py.File(path, 'a') as file:
        change(file)
        write_attributes(file, digest=digest(file))  # as one who made it wrong would
    return path


@pytest.mark.parametrize('value', [0.001, -1, np.nan, np.inf])
def test_one_response_is_enough(tiny, store, tmp_path, value):
    def change(file):
        file['responses'][33, 20] += value

    path = altered(store, tmp_path, change)
    fine = ROIStore(store)
    place, image = fine.location['voxel'][20].tolist(), fine.image_id[33]
    with pytest.raises(
        ValueError, match=rf'subj01.h5: voxel \[{", ".join(map(str, place))}\], 73k id {image} \(0-based'
    ):
        verify_store(tiny, path, 25)


def test_voxels_that_were_swapped(tiny, store, tmp_path):
    def change(file):
        file['voxel'][...] = put(file['voxel'][()], [4, 5], file['voxel'][()][[5, 4]])

    with pytest.raises(ValueError, match='the store has .*, the release gives '):
        verify_store(tiny, altered(store, tmp_path, change), 25)


def test_some_seed_finds_it(tiny, store, tmp_path):
    """With few voxels it depends on the seed whether the altered one is among them."""

    def change(file):
        file['responses'][:, 20] = 0

    path, found = altered(store, tmp_path, change), 0
    for seed in range(12):
        try:
            verify_store(tiny, path, 5, seed)
        except ValueError:
            found += 1
    assert 0 < found < 12


@pytest.mark.parametrize('nifti', [False, True])
def test_one_beta_is_enough(store, tree, nifti):
    fine = ROIStore(store)
    place = tuple(fine.location['voxel'][17].tolist())
    betas(tree.beta_file('subj01', 2), lambda values: put(values, (*place, 400), values[(*place, 400)] + 300))
    if nifti:
        to_nifti(tree, 'subj01')
    with pytest.raises(ValueError, match=rf'subj01.h5: voxel \[{", ".join(map(str, place))}\], 73k id'):
        verify_store(tree, store, 25)


@pytest.mark.parametrize('valid, says', [(0, 'lacks'), (1, 'has')])
def test_one_voxel_of_a_valid_map_is_enough(store, tree, valid, says):
    with h5py.File(store, 'r') as file:
        places = file['voxel'][()]
    with h5py.File(tree.beta_file('subj01', 1), 'r') as file:
        place = next(tuple(p) for p in places.tolist() if file['betas'][:, p[2], p[1], p[0]].any() != valid)
    path = volume(tree.valid_file('subj01', 1), lambda values: put(values, place, valid))
    message = rf'{path.name} says that voxel \[{", ".join(map(str, place))}\] {says} data, but its betas of session 1'
    with pytest.raises(ValueError, match=message):
        verify_store(tree, store, 25)


def test_another_design(store, tree):
    change_design(tree, masterordering=np.roll(np.arange(2250) % 750 + 1, 7).astype(np.uint16)[None])
    with pytest.raises(ValueError, match='subj01.h5: voxel'):
        verify_store(tree, store, 25)


DAMAGE = {
    'betas missing': (FileNotFoundError, lambda t: gone(t.beta_file('subj01', 3))),
    'betas cut': (ValueError, lambda t: cut(t.beta_file('subj01', 3), -1)),
    'betas are a group': (ValueError, lambda t: hdf5(t.beta_file('subj01', 3), group)),
    'betas too small': (ValueError, lambda t: betas(t.beta_file('subj01', 3), lambda b: b[:2])),
    'NIfTI betas cut': (ValueError, lambda t: to_nifti(t, 'subj01') or cut(t.beta_file('subj01', 3, 'nii.gz'), -9000)),
    'valid map cut': (ValueError, lambda t: cut(t.valid_file('subj01', 2), -1)),
    'valid map too small': (ValueError, lambda t: volume(t.valid_file('subj01', 2), lambda v: v[:2])),
    'no design': (FileNotFoundError, lambda t: gone(t.design_file)),
}


@pytest.mark.parametrize('error, damage', DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_tree_is_named(store, tree, error, damage):
    named = damage(tree)
    with pytest.raises(error) as caught:
        verify_store(tree, store, 25)
    assert str(named) in str(caught.value)


def test_wrong_arguments(tiny, tree, store, tmp_path):
    with pytest.raises(ValueError, match='voxels is 0'):
        verify_store(tiny, store, 0)
    with pytest.raises(FileNotFoundError, match='subj02.h5 does not exist'):
        verify_store(tiny, store.with_name('subj02.h5'), 1)
    with pytest.raises(ValueError, match='subj01.h5 .* is no readable HDF5 file'):
        verify_store(tiny, write(tmp_path / 'subj01.h5', 'nothing'), 1)
    with pytest.raises(ValueError, match='subj01.h5 holds b3 betas in func1pt8mm, but .* for b2'):
        verify_store(NSDLayout(tiny.root, 'b2'), store, 1)


def test_the_command(tiny, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location('prepare_nsd', ROOT / 'tools/prepare_nsd.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main([str(tiny.root), str(tmp_path), '--rois', *CLASSES, '--verify', '6']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f'wrote {tmp_path}/subj0{k}.h5' for k in (1, 2)]
    for k, line in enumerate(lines[2:], 1):
        assert line.startswith(f'{tmp_path}/subj0{k}.h5: 6 voxels read again, largest difference ')
        assert float(line.split()[-1]) < 2e-5
