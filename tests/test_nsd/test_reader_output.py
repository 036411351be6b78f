"""Stores that cannot be written, pictures that cannot be read, and wrong arguments."""

import errno
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import h5py
import numpy as np
import pytest
from child import in_child
from nsd_damage import cut, folder, gone, hdf5, write
from nsd_tree import CLASSES, STIMULI, difference, slow_store

from mmnfn.nsd import NSDLayout, ROIStore, StimulusImages, extraction
from mmnfn.nsd.extraction import working_folder
from mmnfn.nsd.preparation import prepare, prepare_subject

ROOT = Path(__file__).resolve().parents[2]
HOLD = 'import fcntl, sys; f = open(sys.argv[1], "w"); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()'
VOXELS = 25
"""Of subj01."""


def make(layout, store, subject='subj01', **options):
    return prepare_subject(layout, store, subject, CLASSES, progress=False, **options)


def test_an_old_or_unfinished_store_is_replaced(tiny, tmp_path):
    path = make(tiny, tmp_path)
    for name, value in (('format_version', 1), ('complete', False)):
        with h5py.File(path, 'a') as file:
            file.attrs[name] = value
        with pytest.raises(ValueError, match='subj01.h5 .* is not complete or of another version'):
            ROIStore(path)
        assert difference(make(tiny, tmp_path), slow_store(tiny.root, 'subj01')) == ''
    write(path, 'no store')
    assert difference(make(tiny, tmp_path), slow_store(tiny.root, 'subj01')) == ''


def test_a_failure_keeps_the_store_that_was_there(tree, tmp_path):
    before = make(tree, tmp_path).read_bytes()
    cut(tree.beta_file('subj01', 2), -1)
    with pytest.raises(ValueError, match='betas_session02.hdf5'):
        make(tree, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ['subj01.h5']
    assert (tmp_path / 'subj01.h5').read_bytes() == before


def test_a_store_that_another_process_writes_is_left_alone(tiny, tmp_path):
    (tmp_path / 'subj01.partial').mkdir()
    lock = tmp_path / 'subj01.partial/lock'
    with subprocess.Popen([sys.executable, '-c', HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match='subj01.h5 is being written by another process'):
            make(tiny, tmp_path)
        assert sorted(path.name for path in tmp_path.rglob('*')) == ['lock', 'subj01.partial']
        make(tiny, tmp_path, 'subj02')
        other.kill()
    make(tiny, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['subj01.h5', 'subj02.h5']


def test_a_file_system_without_locks_is_named(tiny, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(extraction.fcntl, 'flock', flock)
    with pytest.warns(UserWarning, match='subj01.partial has no locks .No locks available.: take care'):
        path = make(tiny, tmp_path)
    assert difference(path, slow_store(tiny.root, 'subj01')) == ''


def file_above(tmp_path):
    return write(tmp_path / 'file', '') / 'store'


def store_is_a_file(tmp_path):
    return write(tmp_path / 'file', '')


def partial_is_a_file(tmp_path):
    return write(tmp_path / 'subj01.partial', '').parent


def lock_is_a_folder(tmp_path):
    (tmp_path / 'subj01.partial/lock').mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    'place', [file_above, store_is_a_file, partial_is_a_file, lock_is_a_folder, lambda _: '/proc/0']
)
def test_folders_that_cannot_be_written(tiny, tmp_path, place):
    store = place(tmp_path)
    with pytest.raises(OSError, match=f'{store}/subj01.partial cannot be written: .*Choose another folder'):
        make(tiny, store)
    assert not list(tmp_path.rglob('*.h5'))


def test_a_folder_in_the_place_of_the_store(tiny, tmp_path):
    (tmp_path / 'subj01.h5').mkdir()
    with pytest.raises(OSError, match='subj01.h5'):
        make(tiny, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['subj01.h5', 'subj01.partial']


def with_file_size_limit(limit, *arguments):
    """What a full disk looks like: files cannot grow beyond the limit, in bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return make(*arguments)


# Session files have 38 kB; the store has its responses up to 77 kB, then tables, and 101 kB in all.
LIMITS = [(0, 0), (100, 0), (128, 0), (30000, 0), (45000, 3), (77500, 3), (90000, 3)]


@pytest.mark.parametrize('limit, sessions', LIMITS)
def test_a_full_disk(tiny, tmp_path, limit, sessions):
    error, ended = in_child(with_file_size_limit, limit, tiny, tmp_path / 'store')
    assert ended == 0 and isinstance(error, OSError)
    assert f'{tmp_path}/store/subj01.h5 could not be written: ' in str(error) and 'too large' in str(error).lower()
    left = [path for path in (tmp_path / 'store').rglob('*') if path.is_file() and path.name != 'lock']
    assert len(left) == sessions and all(np.load(path).shape == (VOXELS, 750) for path in left)
    assert ('subj01.partial: free space and run again' in str(error)) == (sessions > 0)
    path = make(tiny, tmp_path / 'store')
    assert difference(path, slow_store(tiny.root, 'subj01')) == '' and list(path.parent.iterdir()) == [path]


def test_the_command_survives_a_full_disk(tiny, tmp_path):
    """Its own message and exit code come through."""
    command = [sys.executable, ROOT / 'tools/prepare_nsd.py', tiny.root, tmp_path / 'store', '--rois', *CLASSES]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (80000, 80000))

    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert (
        done.stderr.splitlines()[-1].startswith('prepare_nsd.py: error: ') and 'subj01.h5 could not be' in done.stderr
    )


def test_a_disk_without_room_is_noticed_before(tiny, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    needed = VOXELS * (3 * 750 * 2 + 750 * 4)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**9, 10**9, needed - 1))
    with pytest.raises(OSError, match='store/subj01.h5 needs 0.00 GB .*Free space, choose another folder'):
        make(tiny, tmp_path / 'store')
    assert not list((tmp_path / 'store').iterdir())
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**9, 10**9, needed))
    make(tiny, tmp_path / 'store')


def test_what_is_there_counts_as_room(tiny, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**9, 10**9, 1000))
    (tmp_path / 'subj01.partial').mkdir()
    write(tmp_path / 'subj01.partial/session01-0.npy', bytes(5000))
    with working_folder(tmp_path / 'subj01.h5', 6000):
        pass
    assert not list(tmp_path.iterdir())


def bricks(change):
    """A damage that changes the pictures."""

    def damage(tree):
        with h5py.File(tree.stimuli_file, 'r') as file:
            pictures = file['imgBrick'][()]
        return hdf5(tree.stimuli_file, lambda file: change(file, pictures))

    return damage


def packed(file, pictures):
    file.create_dataset('imgBrick', data=pictures, chunks=(STIMULI, 8, 8, 3), compression='gzip')
    place = file['imgBrick'].id.get_chunk_info(0).byte_offset + 1000
    file.attrs['place'] = place


def damaged_chunk(tree):
    path = bricks(packed)(tree)
    with h5py.File(path, 'r') as file:
        place = int(file.attrs['place'])
    data = bytearray(path.read_bytes())
    data[place : place + 50] = bytes(50)
    return write(path, data)


PICTURES = {
    'missing': lambda t: gone(t.stimuli_file),
    'empty': lambda t: cut(t.stimuli_file, 0),
    'cut': lambda t: cut(t.stimuli_file, -1),
    'text': lambda t: write(t.stimuli_file, 'nothing'),
    'folder': lambda t: folder(t.stimuli_file),
    'another name': bricks(lambda file, pictures: file.create_dataset('bricks', data=pictures)),
    'group': bricks(lambda file, pictures: file.create_group('imgBrick')),
    'link to nothing': bricks(lambda file, pictures: file.__setitem__('imgBrick', h5py.SoftLink('/nothing'))),
    'too few': bricks(lambda file, pictures: file.create_dataset('imgBrick', data=pictures[:1400])),
    'grey': bricks(lambda file, pictures: file.create_dataset('imgBrick', data=pictures[..., 0])),
    'one channel': bricks(lambda file, pictures: file.create_dataset('imgBrick', data=pictures[..., :1])),
    'float': bricks(lambda file, pictures: file.create_dataset('imgBrick', data=pictures / 255)),
    'channels first': bricks(
        lambda file, pictures: file.create_dataset('imgBrick', data=pictures.transpose(0, 3, 1, 2))
    ),
    'damaged chunk': damaged_chunk,
}


@pytest.mark.parametrize('damage', PICTURES.values(), ids=PICTURES)
def test_bad_pictures_are_named_and_no_file_of_pictures_is_left(tree, tmp_path, damage):
    named = damage(tree)
    with pytest.raises((ValueError, OSError)) as caught:
        prepare(tree, tmp_path / 'store', ['subj02'], image_size=16, roi_classes=CLASSES, progress=False)
    assert str(named) in str(caught.value)
    # What is wrong with single pictures shows when the store is complete, all else before anything is read.
    late = ['subj02.h5'] if damage in (PICTURES['too few'], PICTURES['damaged chunk']) else []
    assert [path.name for path in (tmp_path / 'store').glob('*')] == late


def test_packed_pictures_are_legal(tiny, tree, tmp_path):
    bricks(packed)(tree)
    for layout, store in ((tiny, tmp_path / 'a'), (tree, tmp_path / 'b')):
        prepare(layout, store, ['subj02'], image_size=16, roi_classes=CLASSES, progress=False)
    image = int(ROIStore(tmp_path / 'a/subj02.h5').image_id[40])
    a, b = (StimulusImages(tmp_path / name / 'images_16.h5')[image] for name in 'ab')
    assert (a == b).all() and a.std() > 10


@pytest.mark.parametrize(
    'options, error, named',
    [
        (dict(dtype='float64'), ValueError, "dtype is 'float64'"),
        (dict(normalization='test'), ValueError, "normalization is 'test'"),
        (dict(max_sessions=0), ValueError, 'max_sessions is 0'),
        (dict(max_sessions=-1), ValueError, 'max_sessions is -1'),
        (dict(roi_classes=['streams', 'streams']), ValueError, r"roi_classes is \['streams', 'streams'\]"),
        (dict(roi_classes=[]), ValueError, r'roi_classes is \[\]'),
        (dict(roi_classes=['V1']), ValueError, "ROI class is 'V1'; known for subj02 are floc-bodies"),
        (dict(roi_classes=['lh.streams']), ValueError, "ROI class is 'lh.streams'"),
        (dict(roi_classes=['../streams']), ValueError, "ROI class is '../streams'"),
        (dict(workers=0), ValueError, 'workers is 0'),
        (dict(subjects=['subj09']), ValueError, "subject is 'subj09'"),
        (dict(subjects=['subj03']), FileNotFoundError, 'subj03'),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_left(tiny, tmp_path, options, error, named):
    options = dict(dict(subjects=['subj02'], roi_classes=CLASSES, progress=False), **options)
    with pytest.raises(error, match=named):
        prepare(tiny, tmp_path / 'store', **options)
    assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize(
    'arguments, named',
    [
        (['--verify', '0'], '--verify is 0'),
        (['--workers', '0'], 'workers is 0'),
        (['--max-sessions', '0'], 'max_sessions is 0'),
        (['--image-size', '3'], '--image-size is 3'),
        (['--rois', 'streams', 'streams'], 'roi_classes is'),
        (['--subjects', '2', 'subj02'], 'subjects has repetitions'),
        (['--subjects', 'two'], "subject is 'two'"),
    ],
)
def test_wrong_arguments_of_the_command(tiny, tmp_path, capsys, arguments, named):
    spec = importlib.util.spec_from_file_location('prepare_nsd', ROOT / 'tools/prepare_nsd.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main([str(tiny.root), str(tmp_path / 'store'), '--rois', *CLASSES, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith('prepare_nsd.py: error: ') and named in error and error.count('\n') == 1
    assert not (tmp_path / 'store').exists()


def test_an_empty_tree(tmp_path):
    with pytest.raises(FileNotFoundError, match='no NSD release tree'):
        NSDLayout(tmp_path)
