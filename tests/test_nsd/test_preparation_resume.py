"""A preparation that was interrupted goes on where it was, and ends with the store of an unbroken run."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from multiprocessing import get_context

import pytest
from child import in_child
from nsd_damage import betas, copy, cut, write
from nsd_tree import CLASSES, difference, slow_store, to_nifti
from same import as_written, contents

from mmnfn.nsd import preparation, store as store_module
from mmnfn.nsd.preparation import prepare, prepare_subject

HOLD = 'import fcntl, sys; f = open(sys.argv[1], "w"); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()'


def make(layout, store, subject='subj01', **options):
    return prepare_subject(layout, store, subject, **{**dict(roi_classes=CLASSES, progress=False), **options})


@pytest.fixture(scope='module')
def unbroken(tiny, tmp_path_factory):
    """Contents of the store of subj01 with its single trials."""
    return contents(make(tiny, tmp_path_factory.mktemp('unbroken'), trials=True))


@pytest.fixture()
def reads(monkeypatch):
    """Numbers of the sessions that are read, in order."""
    numbers = []

    def read(path, *arguments):
        numbers.append(int(path.name[13:15]))
        return read_betas(path, *arguments)

    read_betas = preparation.read_betas
    monkeypatch.setattr(preparation, 'read_betas', read)
    return numbers


def dying_make(owner, name, call, layout, store, options):
    """Prepare, and kill the process at the n-th call of a function."""
    function, calls = getattr(owner, name), []

    def replacement(*arguments, **keywords):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **keywords)

    setattr(owner, name, replacement)
    preparation.VOXELS_PER_BLOCK = 8
    make(layout, store, **options)


def kill(layout, store, owner, name, call, **options):
    """Run the preparation in a process that is killed at a certain call; the session files it left."""
    assert in_child(dying_make, owner, name, call, layout, store, options) == (None, signal.SIGKILL)
    return sorted((store / 'subj01.partial').glob('session*.npy'))


POINTS = {
    'before session 3': (preparation, 'read_betas', 3, 2),
    'before session 3 gets its name': (os, 'replace', 3, 2),
    'in the third block': (preparation, 'average_repeats', 3, 3),
    'in the tables': (store_module.StoreTables, 'write', 1, 3),
    'before the store gets its name': (os, 'replace', 4, 3),
}


@pytest.mark.parametrize('owner, name, call, done', POINTS.values(), ids=POINTS)
def test_a_killed_run_goes_on(tiny, tmp_path, unbroken, reads, owner, name, call, done):
    kept = kill(tiny, tmp_path, owner, name, call, trials=True)
    assert [path.name[:9] for path in kept] == [f'session0{k + 1}' for k in range(done)]
    assert not (tmp_path / 'subj01.h5').exists()
    path = make(tiny, tmp_path, trials=True)
    assert reads == [1, 2, 3][done:]
    assert contents(path) == unbroken
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_killed_when_the_store_is_complete_is_cleaned_up(tiny, tmp_path, unbroken, reads):
    kill(tiny, tmp_path, shutil, 'rmtree', 1, trials=True)
    assert contents(tmp_path / 'subj01.h5') == unbroken
    assert contents(make(tiny, tmp_path, trials=True)) == unbroken and reads == []
    assert [path.name for path in tmp_path.iterdir()] == ['subj01.h5']


def test_a_store_made_of_the_same_files_in_the_same_way_is_kept(tree, tmp_path, reads):
    path = make(tree, tmp_path)
    before = as_written(path)
    assert as_written(make(tree, tmp_path)) == before and reads == [1, 2, 3]
    ways = (dict(dtype='float16'), dict(trials=True), dict(max_sessions=2), dict(roi_classes=CLASSES[:2]))
    for options in (*ways, dict(normalization='all'), {}):
        assert as_written(make(tree, tmp_path, **options)) != before, options
        before = as_written(path)
    rois = [tree.roi_file('subj01', stem) for stem in (CLASSES[1], f'lh.{CLASSES[1]}')]
    for source in (tree.design_file, *rois, tree.label_file('subj01', CLASSES[1]), tree.ncsnr_file('subj01')):
        os.utime(source, (1e9, 1e9))
        assert as_written(make(tree, tmp_path)) != before, source
        before = as_written(path)


@pytest.mark.parametrize('change', ['other betas', 'other time'])
def test_a_changed_session_is_read_again(tree, tmp_path, reads, change):
    kill(tree, tmp_path, preparation, 'average_repeats', 1)
    source = tree.beta_file('subj01', 2)
    if change == 'other betas':
        betas(source, lambda values: values[::-1])
    else:
        os.utime(source, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns + 1))
    path = make(tree, tmp_path)
    assert reads == [2]
    assert difference(path, slow_store(tree.root, 'subj01')) == ''


def test_a_repaired_session_is_all_that_is_read(tree, tmp_path, reads):
    to_nifti(tree, 'subj01')
    path = tree.beta_file('subj01', 2, 'nii.gz')
    good = path.read_bytes()
    cut(path, -1)
    before = write(tmp_path / 'subj01.h5', 'what was there')
    with pytest.raises(ValueError, match='betas_session02.nii.gz cannot be read'):
        make(tree, tmp_path)
    assert before.read_text() == 'what was there'
    path.write_bytes(good)
    made = make(tree, tmp_path)
    assert reads == [1, 2, 2, 3]
    assert difference(made, slow_store(tree.root, 'subj01')) == ''


def test_a_session_under_another_number_is_refused_also_when_resumed(tree, tmp_path, reads):
    third = tree.beta_file('subj01', 3)
    right = third.read_bytes()
    copy(tree.beta_file('subj01', 1), third)
    for _ in range(2):
        with pytest.raises(ValueError, match='session01.hdf5 and .*session03.hdf5 hold the same betas'):
            make(tree, tmp_path)
    assert reads == [1, 2, 3] and not (tmp_path / 'subj01.h5').exists()
    third.write_bytes(right)
    assert difference(make(tree, tmp_path), slow_store(tree.root, 'subj01')) == '' and reads == [1, 2, 3, 3]


def test_workers_give_the_same(tiny, tmp_path):
    options = dict(roi_classes=CLASSES, image_size=16, progress=False)
    paths = prepare(tiny.root, tmp_path / 'two', [2, 1], workers=2, **options)
    single = prepare(tiny, tmp_path / 'one', ['subj02', 'subj01'], **options)
    assert [path.name for path in paths] == ['subj02.h5', 'subj01.h5', 'images_16.h5']
    assert [contents(path) for path in paths] == [contents(path) for path in single]


def test_an_error_in_one_subject_leaves_the_others(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, 'get_context', lambda kind: get_context('fork'))  # for speed
    cut(tree.beta_file('subj02', 1), -1)
    with pytest.raises(ValueError, match='subj02.*betas_session01.hdf5 cannot be read'):
        prepare(tree, tmp_path, workers=2, roi_classes=CLASSES, progress=False)
    assert [path.name for path in tmp_path.glob('subj*')] == ['subj01.h5']
    assert difference(tmp_path / 'subj01.h5', slow_store(tree.root, 'subj01')) == ''


def test_a_store_that_another_process_writes_is_left_alone(tiny, tmp_path):
    command = [sys.executable, '-c', HOLD, tmp_path / '.subj01.h5.lock']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match='subj01.h5 is being written by another process'):
            make(tiny, tmp_path)
        make(tiny, tmp_path, 'subj02')
        other.kill()
    make(tiny, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['subj01.h5', 'subj02.h5']


def with_file_size_limit(limit, *arguments):
    """Prepare as on a full disk: files cannot grow beyond the limit, in bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return make(*arguments)


@pytest.mark.parametrize('limit, sessions', [(30000, 0), (90000, 3)])
def test_a_full_disk_is_named_and_the_sessions_are_kept(tiny, tmp_path, reads, limit, sessions):
    """Session files have 38 kB, the store 101 kB."""
    error, ended = in_child(with_file_size_limit, limit, tiny, tmp_path)
    assert ended == 0 and isinstance(error, OSError) and str(tmp_path / 'subj01') in str(error)
    assert 'too large' in str(error)
    assert len([path for path in tmp_path.rglob('*') if path.is_file()]) == sessions
    path = make(tiny, tmp_path)
    assert reads == [1, 2, 3][sessions:]
    assert difference(path, slow_store(tiny.root, 'subj01')) == '' and list(tmp_path.iterdir()) == [path]
