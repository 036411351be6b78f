"""Reading the voxels of a session, however its file is laid out, against plain indexing; and their normalisation."""

import gzip
import warnings
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from nsd_tree import AFFINE, save_hdf5, save_volume

from mmnfn.nsd import betas as module
from mmnfn.nsd.betas import check_session, normalize_session, read_betas

X, Y, Z = SHAPE = (7, 6, 5)
PLACES = np.argwhere(np.ones(SHAPE, bool))

INDICES = {
    'unsorted': lambda rng: rng.permutation(PLACES)[:60],
    'duplicates': lambda rng: PLACES[rng.integers(0, len(PLACES), 90)],
    'raster': lambda rng: PLACES[np.lexsort(PLACES.T)],
    'backwards': lambda rng: PLACES[np.lexsort(PLACES.T)][::-1],
    'one': lambda rng: np.asarray([[6, 5, 4]]),
    'one column': lambda rng: PLACES[(PLACES[:, 1] == 2) & (PLACES[:, 2] == 3)],
    'steps in two directions': lambda rng: np.asarray([[1, 2, 3], [2, 2, 4], [3, 3, 4], [4, 3, 4], [5, 3, 3]]),
    'empty': lambda rng: np.empty((0, 3), int),
}
LAYOUTS = {
    'per voxel': dict(),
    'per voxel, big-endian': dict(dtype='>i2'),
    'per voxel, packed': dict(compression='gzip'),
    'per voxel, shuffled': dict(shuffle=True),
    'per voxel, checksums': dict(fletcher32=True),
    'per trial': dict(chunks=(1, Z, Y, X)),
    'blocks': dict(chunks=(75, 2, 3, 4)),
    'blocks, packed': dict(chunks=(75, 2, 3, 4), compression='gzip', shuffle=True),
    'blocks that do not fit': dict(chunks=(100, 3, 4, 5)),
    'blocks, big-endian': dict(chunks=(75, 2, 3, 4), dtype='>i2'),
    'whole': dict(chunks=(750, Z, Y, X)),
    'no chunks': dict(chunks=None),
    'no chunks, big-endian': dict(chunks=None, dtype='>i2'),
}


@pytest.fixture(scope='module')
def values():
    """(X, Y, Z, 750) random betas of all sizes."""
    return np.random.default_rng(2).integers(-32768, 32768, (*SHAPE, 750)).astype(np.int16)


@pytest.fixture(scope='module')
def file_of(values, tmp_path_factory):
    """Path of the file of a layout, written once."""
    files = {}

    def make(layout):
        if layout not in files:
            files[layout] = tmp_path_factory.mktemp('betas') / 'betas_session01.hdf5'
            save_hdf5(files[layout], values, **LAYOUTS[layout])
        return files[layout]

    return make


def read(path, index, fast):
    """Betas of a file, which must warn if and only if it is read a slower way."""
    if fast:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            return read_betas(path, index, SHAPE)
    with pytest.warns(UserWarning, match='this copy is read a slower way') as found:
        result = read_betas(path, index, SHAPE)
    assert len(found) == 1 and str(path.parent) in str(found[0].message)
    return result


@pytest.mark.parametrize('index', INDICES.values(), ids=INDICES)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_gives_the_same(values, file_of, layout, index):
    index = index(np.random.default_rng(3))
    found = read(file_of(layout), index, fast=layout in ('per voxel', 'per voxel, big-endian'))
    assert found.dtype == np.int16 and found.dtype.isnative and found.shape == (len(index), 750)
    assert (found == values[tuple(index.T)]).all()


@pytest.mark.parametrize('layout', ['per voxel', 'per voxel, big-endian'])
def test_whole_files_are_read_chunk_by_chunk(values, file_of, monkeypatch, layout):
    """Not by the way for chunks that were never written, which would give the same and hide an error."""
    monkeypatch.setattr(module, '_read_runs', lambda *_: pytest.fail('the slower way was taken'))
    last = values[tuple(PLACES.T)][:, -1] >> (0 if 'big' in layout else 8)
    index = PLACES[(last & 255) != module.UNREAD]
    assert (read_betas(file_of(layout), index, SHAPE) == values[tuple(index.T)]).all() and len(index) > 190


@pytest.mark.parametrize('length', [1, 700, 1499, 1501, 90_000])
@pytest.mark.parametrize('place', [(0, 0, 0), (3, 2, 1), (6, 5, 4)])
def test_a_chunk_of_another_length_spoils_no_voxel(tmp_path, values, place, length):
    """A short one is refused, for the rest would be what the memory holds; of a long one the first trials count."""
    path, expected = tmp_path / 'betas_session01.hdf5', np.maximum(values, -30000)
    index = INDICES['raster'](None)
    with h5py.File(path, 'w', libver='earliest') as file:
        data = file.create_dataset('betas', (750, Z, Y, X), '<i2', chunks=(750, 1, 1, 1))
        for x, y, z in index.tolist():
            content = b'a' * length if (x, y, z) == place else expected[x, y, z].tobytes()
            data.id.write_direct_chunk((0, z, y, x), content)
    if length < 1500:
        with pytest.raises(ValueError, match='betas_session01.hdf5 cannot be read.*chunks of other than 1500 bytes'):
            read_betas(path, index, SHAPE)
    else:
        expected[place] = 0x6161
        assert (read_betas(path, index, SHAPE) == expected[tuple(index.T)]).all()


def test_a_voxel_that_looks_as_if_it_had_not_been_read(tmp_path, values):
    path, marked = tmp_path / 'betas_session01.hdf5', values.copy()
    marked[2, 3, 4, -1] = (module.UNREAD << 8) - (1 << 16)
    save_hdf5(path, marked)
    assert (read_betas(path, PLACES, SHAPE) == marked[tuple(PLACES.T)]).all()


@pytest.mark.filterwarnings('ignore:.*this copy is read a slower way')
@pytest.mark.parametrize('size', [1, 5000, 40000, 300000])
@pytest.mark.parametrize('layout', [name for name in LAYOUTS if not name.startswith('per voxel')])
def test_slabs_of_any_size_give_the_same(values, file_of, monkeypatch, layout, size):
    """From one chunk at a time to nearly everything at once."""
    monkeypatch.setattr(module, 'SLAB_BYTES', size)
    index = np.random.default_rng(size).permutation(PLACES)[:50]
    assert (read_betas(file_of(layout), index, SHAPE) == values[tuple(index.T)]).all()


def test_slabs_are_as_small_as_asked(file_of, monkeypatch):
    """A chunk is read once, and no slab is larger than the limit if a chunk is not."""
    sizes, starts = [], []

    class Counted:
        def __init__(self, data):
            self.data, self.chunks, self.shape = data, data.chunks, data.shape

        def __getitem__(self, where):
            result = self.data[where]
            sizes.append(result.nbytes)
            starts.append((where[0].start, where[1].start))
            return result

    monkeypatch.setattr(module, 'SLAB_BYTES', 150 * 4 * Y * X * 2)
    with h5py.File(file_of('blocks'), 'r') as file:
        module._read_slabs(Counted(file['betas']), PLACES)
        assert max(sizes) <= module.SLAB_BYTES and sum(sizes) == 750 * X * Y * Z * 2 and len(sizes) > 5
        module._read_slabs(Counted(file['betas']), PLACES[PLACES[:, 2] > 0])  # the first voxel is within a chunk
    assert all(t % 75 == 0 and z % 2 == 0 for t, z in starts)


@pytest.mark.parametrize('chunks, fast', [((750, 1, 1, 1), True), ((75, 2, 3, 4), False), ((750, 1, 1, 2), False)])
@pytest.mark.parametrize('fill', [None, 7])
def test_chunks_that_were_never_written(tmp_path, values, chunks, fast, fill):
    """They stand for the fill value, which is 0 unless the file says otherwise."""
    path, expected = tmp_path / 'betas_session01.hdf5', np.full((*SHAPE, 750), fill or 0, np.int16)
    with h5py.File(path, 'w') as file:
        data = file.create_dataset('betas', (750, Z, Y, X), np.int16, chunks=chunks, fillvalue=fill)
        for x, y, z in ((1, 2, 3), (2, 2, 3), (6, 0, 0)):
            data[:, z, y, x] = expected[x, y, z] = values[x, y, z]
    for index in (PLACES, PLACES[[3, 0]], np.asarray([[1, 2, 3], [2, 2, 3]]), np.asarray([[6, 0, 0], [0, 0, 0]])):
        assert (read(path, index, fast) == expected[tuple(index.T)]).all()


@pytest.mark.parametrize('index', INDICES.values(), ids=INDICES)
@pytest.mark.parametrize('big_endian', [False, True])
def test_nifti(tmp_path, values, index, big_endian):
    path, index = tmp_path / 'betas_session01.nii.gz', index(np.random.default_rng(4))
    save_volume(path, values)
    if big_endian:
        nib.save(nib.Nifti1Image(values, AFFINE, nib.load(path).header.as_byteswapped('>')), path)
    found = read(path, index, fast=True)
    assert found.dtype == np.int16 and (found == values[tuple(index.T)]).all()


def test_nifti_with_an_extension_and_two_members(tmp_path, values):
    """Data that begin later in the file, and gzip members one after the other, are legal."""
    path, image = tmp_path / 'betas_session01.nii.gz', nib.Nifti1Image(values, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension('comment', b'a comment of some length'))
    content = image.to_bytes()
    path.write_bytes(gzip.compress(content[:1000], 1) + gzip.compress(content[1000:], 1))
    assert (read_betas(path, PLACES[:9], SHAPE) == values[tuple(PLACES[:9].T)]).all()


@pytest.mark.parametrize('name', ['betas_session01.hdf5', 'betas_session01.nii.gz'])
def test_the_head_is_checked_without_reading_the_data(tmp_path, values, name):
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
def test_head_and_voxels_of_many_chunks_are_read_without_their_index(tmp_path):
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


def test_a_deviation_needs_two_trials():
    betas = np.arange(1500, dtype=np.int16).reshape(2, 750)
    for count in (0, 1):
        with pytest.raises(ValueError, match=f'reference has {count} trials; a deviation needs at least 2'):
            normalize_session(betas, np.arange(750) < count)
    assert np.allclose(normalize_session(betas, np.arange(750) < 2)[:, :3], np.asarray([-0.5, 0.5, 1.5]) / np.sqrt(0.5))


def test_no_variance_in_the_reference_is_no_data(recwarn):
    """Also where other trials differ, which would be infinitely many deviations away."""
    betas = np.full((2, 750), 40, np.int16)
    betas[:, [3, 8]] = 50, 60
    betas[1, 9] = 41
    found = normalize_session(betas, ~np.isin(np.arange(750), (3, 8)))
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all() and not recwarn.list


def test_a_small_deviation_from_a_large_mean_stays_right():
    """Against double precision: a voxel that is 32767 but in three trials."""
    betas = np.full((2, 750), 32767, np.int16)
    betas[0, [11, 22, 703]] = 32766, 32764, 32765
    betas[1] = np.random.default_rng(0).integers(-9, 9, 750) - 30000
    train = np.arange(750) % 10 > 0
    expected = betas.astype(float)
    mean, deviation = expected[:, train].mean(1, keepdims=True), expected[:, train].std(1, ddof=1, keepdims=True)
    found = normalize_session(betas, train)
    assert found.dtype == np.float32
    assert np.allclose(found, (expected - mean) / deviation, rtol=1e-6, atol=1e-6)
