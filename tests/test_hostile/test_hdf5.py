"""HDF5 files of which any byte was changed: betas, stimuli, pictures and ROI stores.

HDF5 has no checksums here. What a file of NSD is accepted as is what HDF5's own reading makes of it; in
the files of this package everything is as it was but the large arrays, of which a byte is a byte.
"""

import warnings

import h5py
import numpy as np
import pytest
from guard import run_cases
from mutations import counts, mutate, rng_of

from mmnfn.nsd.betas import check_session, read_betas
from mmnfn.nsd.hdf5 import digest, write_attributes
from mmnfn.nsd.images import StimulusImages
from mmnfn.nsd.store import ROIStore, StoreTables, atomic_h5

CASES = counts(betas=400, betas_packed=150, betas_slabs=100, stimuli=250, stimuli_chunks=100, pictures=250, store=250)
SHAPE = (3, 2, 2)
INDEX = np.argwhere(np.ones(SHAPE))[[0, 1, 2, 5, 6, 11]]
CHUNKS = {'betas': (750, 1, 1, 1), 'betas_packed': (750, 1, 1, 1), 'betas_slabs': (50, 2, 2, 3)}


def write(path, kind):
    """A small file of each kind."""
    rng = np.random.default_rng(1)
    if kind in CHUNKS:
        with h5py.File(path, 'w', libver='earliest') as file:
            values = rng.integers(-3000, 3000, (750, *SHAPE[::-1])).astype('<i2')
            packing = dict(compression='gzip', shuffle=True, fletcher32=True) if kind == 'betas_packed' else {}
            file.create_dataset('betas', data=values, chunks=CHUNKS[kind], **packing)
    elif kind.startswith('stimuli'):
        with h5py.File(path, 'w', libver='earliest') as file:
            chunks = (1, 4, 4, 3) if kind == 'stimuli_chunks' else None
            file.create_dataset('imgBrick', data=rng.integers(0, 256, (9, 4, 4, 3), np.uint8), chunks=chunks)
    elif kind == 'pictures':
        with atomic_h5(path) as file:
            file.create_dataset('images', data=rng.integers(0, 256, (9, 4, 4, 3), np.uint8))
            file['image_id'] = np.arange(9) * 2
    else:
        write_store(path, rng)
    return path.read_bytes()


def write_store(path, rng, voxels=6, images=5):
    """An ROI store with single trials."""
    with atomic_h5(path) as file:
        file.create_dataset('responses', data=rng.normal(size=(images, voxels)).astype(np.float16))
        file.create_dataset('trials/responses', data=rng.normal(size=(8, voxels)).astype(np.float16))
        file['trials/row'], file['trials/session'] = np.arange(8, dtype=np.int32) % 5, np.ones(8, np.int16)
        StoreTables(
            subject='subj01',
            image_id=np.arange(images) * 7,
            repeats=np.full(images, 3),
            is_test=np.arange(images) < 2,
            seen_by_all=np.arange(images) < 1,
            coordinates=rng.normal(size=(voxels, 3)),
            rois={'streams': np.arange(4), 'floc-words': np.arange(0)},
            ncsnr=rng.uniform(size=voxels),
            noise_ceiling=rng.uniform(size=voxels) * 50,
            location=dict(voxel=INDEX.astype(np.int16), affine=np.eye(4)),
            attributes=dict(space='func1pt8mm', volume_shape=SHAPE, sources=['a 1', 'b 2']),
        ).write(file)


def betas(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        check_session(path, SHAPE)
        return read_betas(path, INDEX, SHAPE)


def slow_betas(path):
    with h5py.File(path, 'r') as file:
        return np.stack([file['betas'][:, z, y, x] for x, y, z in INDEX])


def stimuli(path):
    pictures = StimulusImages(path)
    return np.stack([pictures[image] for image in range(pictures.count)])


def slow_stimuli(path):
    with h5py.File(path, 'r') as file:
        return file['imgBrick'][()]


def pictures(path):
    found = StimulusImages(path)
    return {image: found[image] for image in range(0, 18, 2)}


def store(path):
    found = ROIStore(path)
    content = {name: value for name, value in vars(found).items() if name not in ('path', '_maps')}
    return {**content, 'responses': np.array(found.responses), 'trials': np.array(found.trial_responses)}


def as_it_was(known, data, values):
    """Whether the content is the known one, but for ``values`` that lie in the file as they do in ``data``."""

    def right(found, path):
        now = path.read_bytes()
        for name, value in found.items():
            wanted = known[name]
            if name in values:
                at = data.index(wanted.tobytes())
                wanted = np.frombuffer(now, wanted.dtype, wanted.size, at).reshape(wanted.shape)
            if not same(value, wanted):
                return False
        return list(found) == list(known)

    return right


def same(one, other):
    """Arrays to the bit, and what holds them."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray) and one.dtype != object:
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return one == other


def reader(kind, path, data):
    """What reads a kind of file, and what is right."""
    if kind in CHUNKS:
        return betas, lambda found, path: np.array_equal(found, slow_betas(path))
    if kind.startswith('stimuli'):
        return stimuli, lambda found, path: np.array_equal(found, slow_stimuli(path))
    read = pictures if kind == 'pictures' else store
    known = read(path)
    return read, as_it_was(known, data, known if kind == 'pictures' else ('responses', 'trials'))


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(tmp_path, kind):
    path = tmp_path / 'a.h5'
    data = write(path, kind)
    read, right = reader(kind, path, data)
    used = data.rstrip(b'\0')[: 1 << 20]  # stores have room for what is not needed

    def make(seed):
        return mutate(used, rng_of(seed, kind)) + data[len(used) :]

    found = run_cases(CASES[kind], path, read, right, make, data)
    assert min(found['refused'], found['right']) > len(CASES[kind]) // 50, found


VALUES = np.arange(750 * 12, dtype='<i2').reshape(750, 2, 2, 3)


def virtual(file, path):
    """Values that lie in another file."""
    with h5py.File(path.with_name('other.h5'), 'w') as other:
        other['betas'] = VALUES
    layout = h5py.VirtualLayout(VALUES.shape, '<i2')
    layout[...] = h5py.VirtualSource(path.with_name('other.h5'), 'betas', VALUES.shape)
    file.create_virtual_dataset('betas', layout)


def linked(file, path):
    """A link into another file."""
    virtual(file, path)
    del file['betas']
    file['betas'] = h5py.ExternalLink('other.h5', 'betas')


def external(file, path):
    """Values that are the bytes of any file."""
    path.with_name('secret').write_bytes(VALUES.tobytes())
    file.create_dataset('betas', VALUES.shape, '<i2', external=[(str(path.with_name('secret')), 0, VALUES.nbytes)])


def short(file, path):
    """A chunk that ends early: what comes after it would be whatever the memory holds."""
    betas = file.create_dataset('betas', data=VALUES, chunks=(750, 1, 1, 1))
    betas.id.write_direct_chunk((0, 0, 0, 0), b'a' * 700)


def soft(file, path):
    """A link within the file, which may be one to itself."""
    file['betas'] = h5py.SoftLink('/betas')


def huge_chunks(file, path):
    """A chunk of three gigabytes, of which nothing is in the file."""
    file.create_dataset('betas', VALUES.shape, '<i2', maxshape=(None,) * 4, chunks=(750, 512, 512, 8), compression=1)


BETAS = {
    **{make.__name__: make for make in (virtual, linked, external, short, soft, huge_chunks)},
    'texts': lambda file, path: file.create_dataset('betas', VALUES.shape, h5py.string_dtype()),
    'references': lambda file, path: file.create_dataset('betas', VALUES.shape, h5py.ref_dtype),
    'a type': lambda file, path: file.__setitem__('betas', np.dtype('<i2')),
    'a group': lambda file, path: file.create_group('betas'),
    'pairs': lambda file, path: file.create_dataset('betas', VALUES.shape[:3], '(3,)<i2'),
    'nothing': lambda file, path: file.create_dataset('betas', data=h5py.Empty('<i2')),
    'one number': lambda file, path: file.create_dataset('betas', data=1),
}


def test_betas_that_are_made_to_hurt_are_refused(tmp_path):
    def make(change):
        def written(path):
            with h5py.File(path, 'w') as file:
                change(file, path)

        return written

    found = run_cases(BETAS, tmp_path / 'a.h5', betas, lambda *_: False, make)
    assert found['refused'] == len(BETAS)


def replaced(name, values):
    """Another data set in the place of one."""

    def change(file, path):
        del file[name]
        if values is not None:
            file[name] = values

    return change


STORES = {
    **{f'no {name}': replaced(name, None) for name in ('image_id', 'split', 'responses', 'roi', 'ncsnr', 'trials/row')},
    'a voxel that is not there': replaced('roi/streams', np.asarray([0, 6])),
    'a negative voxel': replaced('roi/streams', np.asarray([-1, 2])),
    'voxels that are no indices': replaced('roi/streams', np.asarray([0.5])),
    'a place outside the volume': replaced('voxel', np.full((6, 3), 3)),
    'a negative place': replaced('voxel', np.full((6, 3), -1)),
    'a trial of no image': replaced('trials/row', np.full(8, 5)),
    'fewer images': replaced('image_id', np.arange(4)),
    'images in no order': replaced('image_id', np.arange(5)[::-1]),
    'images twice': replaced('image_id', np.zeros(5, int)),
    'another split': replaced('split', np.asarray([b'val'] * 5)),
    'a split of objects': replaced('split', np.asarray(['test'] * 5, object)),
    'responses of another shape': replaced('responses', np.zeros((5, 7), np.float16)),
    'responses of another type': replaced('responses', np.zeros((5, 6), complex)),
    'responses that are one number': replaced('responses', np.float16(1)),
    'a link to another file': replaced('ncsnr', h5py.ExternalLink('other.h5', 'ncsnr')),
    'a group that is a link': replaced('trials', h5py.ExternalLink('other.h5', 'trials')),
    'a text of any length': lambda file, path: file.attrs.__setitem__('more', 'text'),
    'no subject': lambda file, path: file.attrs.__delitem__('subject'),
    'a version that is a text': lambda file, path: file.attrs.__setitem__('format_version', '3'),
}


@pytest.mark.parametrize('signed', [False, True])
def test_stores_that_are_made_to_hurt_are_refused(tmp_path, signed):
    """``signed``: with the right digest, as an author could make it."""

    def make(change):
        def written(path):
            write(path, 'store')
            with h5py.File(path, 'a') as file:
                change(file, path)
                if signed:
                    try:
                        write_attributes(file, digest=digest(file))
                    except ValueError:
                        pass  # what has no digest is refused before

        return written

    found = run_cases(STORES, tmp_path / 'a.h5', store, lambda *_: False, make)
    assert found['refused'] == len(STORES)
