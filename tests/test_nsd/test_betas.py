"""Reading the voxels of a session, however its file is laid out, against plain indexing; and their normalisation."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from nsd_tree import save_hdf5, save_volume

from mmnfn.nsd import betas as module
from mmnfn.nsd.betas import check_session, normalize_session, read_betas

X, Y, Z = SHAPE = (7, 6, 5)
PLACES = np.argwhere(np.ones(SHAPE, bool))
INDICES = {
    'unsorted': np.random.default_rng(3).permutation(PLACES)[:60],
    'duplicates': PLACES[np.random.default_rng(3).integers(0, len(PLACES), 90)],
    'raster': PLACES[np.lexsort(PLACES.T)],
    'one': np.asarray([[6, 5, 4]]),
    'empty': np.empty((0, 3), int),
}
FAST = ('per voxel', 'per voxel, big-endian', 'nifti')
LAYOUTS = {
    'per voxel': dict(),
    'per voxel, big-endian': dict(dtype='>i2'),
    'per voxel, packed': dict(compression='gzip'),
    'per trial': dict(chunks=(1, Z, Y, X)),
    'blocks, packed': dict(chunks=(75, 2, 3, 4), compression='gzip', shuffle=True),
    'nifti': None,
}


@pytest.fixture(scope='module')
def values():
    """(X, Y, Z, 750) random betas of all sizes."""
    return np.random.default_rng(2).integers(-32768, 32768, (*SHAPE, 750)).astype(np.int16)


@pytest.fixture(scope='module', params=LAYOUTS)
def file(request, values, tmp_path_factory):
    """A file of every layout, and whether it is read the fast way."""
    layout, folder = request.param, tmp_path_factory.mktemp('betas')
    path = folder / ('betas_session01.nii.gz' if layout == 'nifti' else 'betas_session01.hdf5')
    save_volume(path, values) if layout == 'nifti' else save_hdf5(path, values, **LAYOUTS[layout])
    return path, layout in FAST


@pytest.mark.parametrize('index', INDICES.values(), ids=INDICES)
def test_every_layout_gives_the_same(values, file, index):
    path, fast = file
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        found = read_betas(path, index, SHAPE)
    assert found.dtype == np.int16 and found.dtype.isnative and found.shape == (len(index), 750)
    assert (found == values[tuple(index.T)]).all()
    said = [str(warning.message) for warning in warned]
    assert said == [] if fast else str(path.parent) in said[0] and 'this copy is read a slower way' in said[0]


def test_nsds_layout_is_read_chunk_by_chunk(tmp_path, values, monkeypatch):
    """Not through HDF5's selections, which would give the same."""
    save_hdf5(tmp_path / 'betas_session01.hdf5', values)
    monkeypatch.setattr(module, '_read_slabs', lambda *_: pytest.fail('the slower way was taken'))
    assert (read_betas(tmp_path / 'betas_session01.hdf5', PLACES, SHAPE) == values[tuple(PLACES.T)]).all()


def test_chunks_that_were_never_written_are_zeros(tmp_path, values):
    path, expected = tmp_path / 'betas_session01.hdf5', np.zeros((*SHAPE, 750), np.int16)
    with h5py.File(path, 'w') as file:
        data = file.create_dataset('betas', (750, Z, Y, X), np.int16, chunks=(750, 1, 1, 1))
        for x, y, z in ((1, 2, 3), (2, 2, 3), (6, 0, 0)):
            data[:, z, y, x] = expected[x, y, z] = values[x, y, z]
    for index in (PLACES, PLACES[[3, 0]], np.asarray([[1, 2, 3], [2, 2, 3]])):
        assert (read_betas(path, index, SHAPE) == expected[tuple(index.T)]).all()


@pytest.mark.parametrize('name', ['betas_session01.hdf5', 'betas_session01.nii.gz'])
def test_the_header_is_checked_without_reading_the_data(tmp_path, values, name):
    path = tmp_path / name
    save_hdf5(path, values) if name.endswith('hdf5') else save_volume(path, values)
    check_session(path, SHAPE)
    with pytest.raises(ValueError, match=f'{name}.*int16'):
        check_session(path, SHAPE[::-1])
    with pytest.raises(FileNotFoundError, match=f'none_{name} does not exist'):
        check_session(path.with_name(f'none_{name}'), SHAPE)
    if name.endswith('nii.gz'):
        path.write_bytes(path.read_bytes()[:-30])
        check_session(path, SHAPE)
        with pytest.raises(ValueError, match=name):
            read_betas(path, PLACES, SHAPE)


@pytest.mark.skipif(not Path('/proc/self/io').exists(), reason='Linux counts what a process reads')
def test_few_voxels_are_read_without_the_index_of_all_chunks(tmp_path):
    """NSD's sessions have 700,000 chunks, and their index 45 MB, which takes longer than the voxels."""
    shape = (40, 20, 20)
    save_hdf5(tmp_path / 'betas_session01.hdf5', np.ones((*shape, 750), np.int16))

    def read():
        return int(Path('/proc/self/io').read_text().split()[1])

    before = read()
    check_session(tmp_path / 'betas_session01.hdf5', shape)
    assert read() - before < 50_000
    assert (read_betas(tmp_path / 'betas_session01.hdf5', PLACES[:9], shape) == 1).all()
    assert read() - before < 150_000


def test_normalisation_against_double_precision():
    """Also for a voxel that is 32767 in all but three trials; test trials change nothing in the others."""
    betas = np.full((3, 750), 32767, np.int16)
    betas[0, [11, 22, 703]] = 32766, 32764, 32765
    betas[1] = np.random.default_rng(0).integers(-9, 9, 750) - 30000
    betas[2] = np.random.default_rng(1).integers(-900, 900, 750)
    train = np.arange(750) % 10 > 0
    expected = betas.astype(float)
    mean, std = expected[:, train].mean(1, keepdims=True), expected[:, train].std(1, ddof=1, keepdims=True)
    found = normalize_session(betas, train)
    assert found.dtype == np.float32
    assert np.allclose(found, (expected - mean) / std, rtol=1e-6, atol=1e-6)
    betas[:, ~train] = 30000
    assert (normalize_session(betas, train)[:, train] == found[:, train]).all()
    assert np.allclose(normalize_session(betas, None), betas / 300)


def test_voxels_without_data_or_variance_are_nan(recwarn):
    """Also where only trials outside the reference differ, which would be infinitely many stds away."""
    betas = np.full((3, 750), 40, np.int16)
    betas[0] = 0
    betas[1:, [3, 8]] = 50, 60
    betas[2, 9] = 41
    found = normalize_session(betas, ~np.isin(np.arange(750), (3, 8)))
    assert np.isnan(found[:2]).all() and np.isfinite(found[2]).all() and not recwarn.list
    assert np.isnan(normalize_session(betas, None)[0]).all()


def test_a_std_needs_two_trials():
    with pytest.raises(ValueError, match='reference has 1 trials; a std needs at least 2'):
        normalize_session(np.ones((1, 750), np.int16), np.arange(750) < 1)
