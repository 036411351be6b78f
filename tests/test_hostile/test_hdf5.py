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

from mmnfn.datasets.betas import check_session, read_betas
from mmnfn.datasets.images import StimulusImages
from mmnfn.datasets.roi_store import ROIStore, StoreTables, atomic_h5

CASES = counts(betas=400, betas_packed=150, betas_slabs=100, stimuli=250, stimuli_chunks=100, pictures=250, store=350)
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
