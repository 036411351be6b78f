"""Images: the right ones, shrunk by averaging, and none for ids that are not there."""

import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from nsd_damage import gone, write
from nsd_tree import CLASSES
from same import as_written

from mmnfn.nsd import ROIStore, StimulusImages, prepare
from mmnfn.nsd.images import resize, write_image_store
from mmnfn.utils import DataError

COUNT, SIDE = 7, 64


@pytest.fixture()
def source(tmp_path):
    """A stimulus file of random images, which no filter that skips pixels gets right."""
    path = tmp_path / 'nsd_stimuli.hdf5'
    with h5py.File(path, 'w') as file:
        file['imgBrick'] = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
    return path


def write_images(source, store, ids, size=16, name='a'):
    return write_image_store(store, ids, size, StimulusImages(source).__getitem__, name, progress=False)


@pytest.mark.parametrize('side, size', [(64, 32), (64, 64), (425, 224), (8, 16)])
def test_a_pixel_is_the_mean_of_the_area_it_covers(side, size):
    """Against repeating each pixel until every new one covers whole ones; and transposing commutes."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    found = resize(image, size)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8
    for row, column in ((0, 0), (3, 5), (size // 2, size - 1)):
        rows = np.repeat(np.arange(side), size)[row * side : (row + 1) * side]
        columns = np.repeat(np.arange(side), size)[column * side : (column + 1) * side]
        assert np.abs(found[row, column] - image[rows][:, columns].mean((0, 1))).max() <= 0.501
    assert (resize(image.swapaxes(0, 1), size) == found.swapaxes(0, 1)).mean() > 0.999


def test_an_image_is_found_by_its_id(source, tmp_path):
    raw, small = StimulusImages(source), StimulusImages(write_images(source, tmp_path, [5, 0, 3, 5], 32))
    assert small.size == 32 and small.image_id.tolist() == [0, 3, 5] and raw.size == SIDE
    assert all((small[k] == resize(raw[k], 32)).all() for k in (0, 3, 5))
    for images, missing in ((small, (-1, 1, 4, 6)), (raw, (-1, COUNT))):
        for image_id in missing:
            with pytest.raises(KeyError, match=f'has no image with 73k id .0-based. {image_id}'):
                images[image_id]
    assert small.missing(np.asarray([5, 1, 0])).tolist() == [1] and raw.missing([COUNT, 0]).tolist() == [COUNT]


def test_images_of_an_earlier_call_stay(source, tmp_path, monkeypatch):
    """Those of another subject; they are not read again, unless they are of another source."""
    first = write_images(source, tmp_path, [0, 3])
    before, images = as_written(first), {k: StimulusImages(first)[k] for k in (0, 3)}
    assert as_written(write_images(source, tmp_path, [3])) == before
    raw, read = StimulusImages.__getitem__, []
    monkeypatch.setattr(StimulusImages, '__getitem__', lambda self, k: [self.raw and read.append(k), raw(self, k)][1])
    both = StimulusImages(write_images(source, tmp_path, [3, 5]))
    assert both.image_id.tolist() == [0, 3, 5] and read == [5]
    assert all((both[k] == image).all() for k, image in images.items()) and both[5].any()
    assert StimulusImages(write_images(source, tmp_path, [3], name='b')).image_id.tolist() == [3]


def test_two_writers_wait_for_each_other(source, tmp_path):
    """Each adds to what the other one has written."""
    with ThreadPoolExecutor(2) as pool:  # the lock belongs to an open file, so threads are as good as processes
        jobs = [pool.submit(write_images, source, tmp_path, ids) for ids in ([0, 1, 2, 3], [3, 4, 5, 6])]
        paths = {job.result() for job in jobs}
    both, raw = StimulusImages(paths.pop()), StimulusImages(source)
    assert both.image_id.tolist() == list(range(COUNT)) and not list(tmp_path.glob('.*'))
    assert all((both[k] == resize(raw[k], 16)).all() for k in range(COUNT))


def test_images_of_a_changed_stimulus_file_are_made_again(tree, tmp_path):
    def image():
        path = prepare(tree, tmp_path, [2], 8, roi_classes=CLASSES, progress=False)[1]
        return StimulusImages(path)[int(ROIStore(tmp_path / 'subj02.h5').image_id[0])]

    assert not (image() == 7).all()
    with h5py.File(tree.stimuli_file, 'a') as file:
        file['imgBrick'][:] = 7
    os.utime(tree.stimuli_file, (1e9, 1e9))
    assert (image() == 7).all()


def bricks(function):
    """A damage that changes the images."""

    def damage(tree):
        with h5py.File(tree.stimuli_file, 'a') as file:
            changed = function(file.pop('imgBrick')[()])
            if changed is not None:
                file['imgBrick'] = changed
        return tree.stimuli_file

    return damage


BAD = {
    'missing': lambda t: gone(t.stimuli_file),
    'a web page': lambda t: write(t.stimuli_file, '<html>'),
    'another dataset': bricks(lambda images: None),
    'grey': bricks(lambda images: images[..., 0]),
    'too few': bricks(lambda images: images[:1400]),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_stimulus_files_are_named_before_the_betas_are_read(tree, tmp_path, case):
    named = BAD[case](tree)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        prepare(tree, tmp_path / 'store', ['subj02'], image_size=16, roi_classes=CLASSES, progress=False)
    assert str(named) in str(caught.value)
    assert [path.name for path in (tmp_path / 'store').glob('*')] == (['subj02.h5'] if case == 'too few' else [])


def test_a_damaged_image_is_named(tmp_path):
    """In a line that the tools can print."""
    path = tmp_path / 'nsd_stimuli.hdf5'
    with h5py.File(path, 'w') as file:
        images = file.create_dataset('imgBrick', (2, 8, 8, 3), np.uint8, chunks=(1, 8, 8, 3), compression='gzip')
        images[:] = 7
        place = images.id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 8] = b'no chunk'
    path.write_bytes(content)
    images = StimulusImages(path)
    assert (images[0] == 7).all()
    with pytest.raises(DataError, match='nsd_stimuli.hdf5: image 1 cannot be read: .*Download it again'):
        images[1]
