"""Pictures: the right ones, shrunk by averaging, and none for ids that are not there."""

import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from same import as_written

from mmnfn.nsd import StimulusImages
from mmnfn.nsd.images import write_image_store
from mmnfn.utils import DataError

COUNT, SIDE = 7, 64


@pytest.fixture()
def source(tmp_path):
    """A stimulus file of random pictures, which no filter that skips pixels gets right."""
    path = tmp_path / 'nsd_stimuli.hdf5'
    with h5py.File(path, 'w') as file:
        file['imgBrick'] = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
    return path


@pytest.mark.parametrize('size', [32, 16, 8])
def test_a_pixel_is_the_mean_of_those_it_stands_for(source, tmp_path, size):
    raw = StimulusImages(source)
    small = StimulusImages(write_image_store(source, tmp_path, np.asarray([5, 0, 3, 5]), size, progress=False))
    step = SIDE // size
    for image_id in (0, 3, 5):
        means = raw[image_id].reshape(size, step, size, step, 3).mean((1, 3))
        assert small[image_id].shape == (size, size, 3) and np.abs(small[image_id] - means).max() <= 0.51
    for image_id in (-1, 1, 4, 6):
        with pytest.raises(KeyError, match=f'has no picture with 73k id .0-based. {image_id}'):
            small[image_id]


def test_pictures_of_an_earlier_call_stay(source, tmp_path, monkeypatch):
    """Those of another subject; they are not read again, unless they are of another file."""
    first = write_image_store(source, tmp_path, np.asarray([0, 3]), 16, progress=False)
    before, pictures = as_written(first), {k: StimulusImages(first)[k] for k in (0, 3)}
    assert as_written(write_image_store(source, tmp_path, np.asarray([3]), 16, progress=False)) == before
    raw, read = StimulusImages.__getitem__, []
    monkeypatch.setattr(StimulusImages, '__getitem__', lambda self, k: [self.raw and read.append(k), raw(self, k)][1])
    both = StimulusImages(write_image_store(source, tmp_path, np.asarray([3, 5]), 16, progress=False))
    assert both.image_id.tolist() == [0, 3, 5] and read == [5]
    assert all((both[k] == picture).all() for k, picture in pictures.items()) and both[5].any()
    assert both.missing(np.asarray([5, 1, 0])).tolist() == [1] and StimulusImages(source).missing([COUNT, 0]) == [COUNT]
    size = source.stat().st_size
    with h5py.File(source, 'a') as file:
        file['imgBrick'][3] = 7
    os.utime(source, (1e9, 1e9))
    assert source.stat().st_size == size
    with pytest.warns(UserWarning, match='images_16.h5 was made from another stimulus file, .* 2 of its pictures'):
        other = StimulusImages(write_image_store(source, tmp_path, np.asarray([3]), 16, progress=False))
    assert other.image_id.tolist() == [3] and (other[3] == 7).all()


def test_two_writers_wait_for_each_other(source, tmp_path):
    """Each adds to what the other one has written."""
    with ThreadPoolExecutor(2) as pool:  # a lock of an open file, so threads are as good as processes
        for ids in ([0, 1, 2, 3], [3, 4, 5, 6]):
            pool.submit(write_image_store, source, tmp_path, np.asarray(ids), 32, progress=False)
    both, raw = StimulusImages(tmp_path / 'images_32.h5'), StimulusImages(source)
    assert both.image_id.tolist() == list(range(COUNT))
    assert all(np.abs(both[k].mean() - raw[k].mean()) < 1 for k in range(COUNT))


def test_ids_beyond_the_file_are_refused(source, tmp_path):
    raw = StimulusImages(source)
    assert (raw[COUNT - 1] != raw[0]).any()
    for image_id in (-1, COUNT):
        with pytest.raises(KeyError, match=f'0…{COUNT - 1}, not {image_id}'):
            raw[image_id]
    with pytest.raises(ValueError, match=f'holds {COUNT} pictures, but 73k id {COUNT} .0-based. is wanted'):
        write_image_store(source, tmp_path, np.asarray([2, COUNT]), 16, progress=False)
    path = write_image_store(source, tmp_path, np.asarray([2, COUNT - 1]), SIDE, progress=False)
    assert (StimulusImages(path)[COUNT - 1] == raw[COUNT - 1]).all()


def test_a_damaged_picture_is_named(tmp_path):
    """In a line that the tools can print."""
    path = tmp_path / 'nsd_stimuli.hdf5'
    with h5py.File(path, 'w') as file:
        pictures = file.create_dataset('imgBrick', (2, 8, 8, 3), np.uint8, chunks=(1, 8, 8, 3), compression='gzip')
        pictures[:] = 7
        place = pictures.id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 8] = b'no chunk'
    path.write_bytes(content)
    images = StimulusImages(path)
    assert (images[0] == 7).all()
    with pytest.raises(DataError, match='nsd_stimuli.hdf5: picture 1 cannot be read: .*Download it again'):
        images[1]
