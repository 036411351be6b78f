"""A preparation that was interrupted goes on where it was, and ends with the store of an unbroken run."""

import errno
import os
import shutil
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
from child import in_child
from nsd_damage import betas, cut, put, write
from nsd_tree import CLASSES, difference, slow_store, to_nifti
from same import as_written, contents

from mmnfn.nsd import NSDLayout, extraction, preparation, store as roi_store
from mmnfn.nsd.preparation import prepare, prepare_subject


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

    read_betas = extraction.read_betas
    monkeypatch.setattr(extraction, 'read_betas', read)
    return numbers


def die_at(owner, name, call, then=lambda: os.kill(os.getpid(), signal.SIGKILL)):
    """Make a function kill the process when it is called for the n-th time."""
    function, calls = getattr(owner, name), []

    def replacement(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            then()
        return function(*arguments, **options)

    setattr(owner, name, replacement)


def dying_make(owner, name, call, layout, store, options):
    preparation.VOXELS_PER_BLOCK = 8
    die_at(owner, name, call)
    make(layout, store, **options)


def kill(layout, store, owner, name, call, **options):
    """Run the preparation in a process that is killed at a certain call; the session files it left."""
    assert in_child(dying_make, owner, name, call, layout, store, options) == (None, signal.SIGKILL)
    return sorted((store / 'subj01.partial').glob('session*.npy'))


POINTS = {
    'before session 1': (extraction, 'read_betas', 1, 0),
    'before session 2': (extraction, 'read_betas', 2, 1),
    'before session 3': (extraction, 'read_betas', 3, 2),
    'while session 2 is written': (os, 'fsync', 2, 1),
    'before session 3 gets its name': (Path, 'replace', 3, 2),
    'before the averages': (preparation, 'atomic_h5', 1, 3),
    'in the first block': (preparation, 'average_repeats', 1, 3),
    'in the third block': (preparation, 'average_repeats', 3, 3),
    'in the tables': (roi_store.StoreTables, 'write', 1, 3),
    'before the store gets its name': (Path, 'replace', 4, 3),
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


def test_killed_again_and_again(tiny, tmp_path, unbroken):
    """Each time in the next session; what is whole is never written again."""
    written = {}
    for number in (1, 2, 3):
        kept = kill(tiny, tmp_path, extraction, 'read_betas', 2 if number < 3 else 1, trials=True)
        written.update({path.name: as_written(path) for path in kept[number - 1 : number]})
        assert {path.name: as_written(path) for path in kept} == written and len(kept) == min(number, 2)
    assert contents(make(tiny, tmp_path, trials=True)) == unbroken


def test_killed_when_the_store_is_complete(tiny, tmp_path, unbroken, reads):
    kill(tiny, tmp_path, shutil, 'rmtree', 1, trials=True)
    assert contents(tmp_path / 'subj01.h5') == unbroken
    assert contents(make(tiny, tmp_path, trials=True)) == unbroken and reads == []
    assert [path.name for path in tmp_path.iterdir()] == ['subj01.h5']


def test_a_whole_store_is_kept(tree, tmp_path, reads):
    """Of the same files, made in the same way."""
    path = make(tree, tmp_path)
    before = as_written(path)
    assert as_written(make(tree, tmp_path)) == before and reads == [1, 2, 3]
    ways = (dict(dtype='float16'), dict(trials=True), dict(max_sessions=2), dict(roi_classes=CLASSES[:2]))
    for options in (*ways, dict(normalization='all'), {}):
        assert as_written(make(tree, tmp_path, **options)) != before, options
        before = as_written(path)
    sources = [tree.design_file, tree.roi_file('subj01', CLASSES[1]), tree.session_file('subj01', 3)]
    for source in (*sources, tree.beta_dir('subj01') / 'ncsnr.nii.gz'):
        os.utime(source, (1e9, 1e9))
        assert as_written(make(tree, tmp_path)) != before, source
        before = as_written(path)
    data = bytearray(path.read_bytes())
    data[-4000:-3900] = bytes(100)
    write(path, put(data, slice(0, 4), b'gone'))
    assert difference(make(tree, tmp_path), slow_store(tree.root, 'subj01')) == ''


def test_a_kill_in_the_second_subject_costs_nothing_of_the_first(tiny, tmp_path, reads):
    make(tiny, tmp_path)
    options = dict(roi_classes=CLASSES, progress=False)
    prepare(tiny, tmp_path, ['subj01', 'subj02'], **options)
    assert reads == [1, 2, 3, 1]


def interrupt():
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on(tiny, tmp_path, unbroken, monkeypatch):
    """By Ctrl-C."""
    with monkeypatch.context() as patch:
        patch.setattr(extraction, 'read_betas', extraction.read_betas)  # which is put back afterwards
        die_at(extraction, 'read_betas', 3, interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(tiny, tmp_path, trials=True)
    assert len(list((tmp_path / 'subj01.partial').glob('session*.npy'))) == 2
    assert contents(make(tiny, tmp_path, trials=True)) == unbroken


def test_a_changed_session_is_read_again(tree, tmp_path, reads):
    kept = kill(tree, tmp_path, preparation, 'average_repeats', 1)
    betas(tree.beta_file('subj01', 2), lambda values: values[::-1])
    path = make(tree, tmp_path)
    assert reads == [2] and len(kept) == 3
    assert difference(path, slow_store(tree.root, 'subj01')) == ''


@pytest.mark.parametrize('form', ['hdf5', 'nii.gz'])
def test_a_session_under_another_number_is_refused_also_when_resumed(tree, tmp_path, reads, form):
    third = tree.beta_file('subj01', 3)
    right = third.read_bytes()
    shutil.copy(tree.beta_file('subj01', 1), third)
    if form == 'nii.gz':
        to_nifti(tree, 'subj01')
    for _ in range(2):
        with pytest.raises(ValueError, match=f'session01.{form} and .*session03.{form} hold the same betas'):
            make(tree, tmp_path)
    assert reads == [1, 2, 3] and not (tmp_path / 'subj01.h5').exists()
    third.write_bytes(right)  # which goes before the NIfTI file
    assert difference(make(tree, tmp_path), slow_store(tree.root, 'subj01')) == '' and reads == [1, 2, 3, 3]


@pytest.mark.parametrize('changes', [dict(size=True), dict(time=True)])
def test_size_and_time_are_looked_at(tree, tmp_path, reads, changes):
    kill(tree, tmp_path, preparation, 'average_repeats', 1)
    source = tree.beta_file('subj01', 3)
    before = source.stat()
    if 'size' in changes:
        source.write_bytes(source.read_bytes() + b'more')
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    make(tree, tmp_path)
    assert reads == [3]


def test_another_version_of_the_betas_is_not_taken_for_this_one(tree, tmp_path):
    """Though names, sizes and times are the same."""
    other = NSDLayout(tree.root, 'b2')
    shutil.copytree(tree.beta_dir('subj01'), other.beta_dir('subj01'))
    for session in (1, 2, 3):
        path, time = other.beta_file('subj01', session), tree.beta_file('subj01', session).stat().st_mtime_ns
        betas(path, lambda values: values[:, ::-1])
        os.utime(path, ns=(time, time))
    kill(other, tmp_path, preparation, 'average_repeats', 1)
    assert difference(make(tree, tmp_path), slow_store(tree.root, 'subj01')) == ''


def test_a_repaired_session_is_all_that_is_read(tree, tmp_path, reads):
    path = tree.beta_file('subj01', 2)
    good = path.read_bytes()
    betas(path, lambda values: values, compression='gzip')
    write(path, put(bytearray(path.read_bytes()), slice(50000, 80000), bytes(30000)))
    with pytest.warns(UserWarning, match='slower way'):
        with pytest.raises(ValueError, match='betas_session02.hdf5 cannot be read'):
            make(tree, tmp_path)
    assert not (tmp_path / 'subj01.h5').exists()
    path.write_bytes(good)
    made = make(tree, tmp_path)
    assert reads == [1, 2, 2, 3]
    assert difference(made, slow_store(tree.root, 'subj01')) == ''


@pytest.mark.parametrize(
    'options, sessions',
    [
        (dict(normalization='none'), []),
        (dict(normalization='all'), []),
        (dict(trials=True), []),
        (dict(max_sessions=2), []),
        (dict(roi_classes=CLASSES[::-1]), []),
        (dict(roi_classes=CLASSES[:2]), [1, 2, 3]),
        (dict(roi_classes=[*CLASSES, 'nsdgeneral']), [1, 2, 3]),
    ],
)
def test_other_options_use_what_fits(tiny, tmp_path, reads, options, sessions):
    kill(tiny, tmp_path, preparation, 'average_repeats', 1)
    path = make(tiny, tmp_path, **options)
    assert reads == sessions
    classes = options.get('roi_classes', CLASSES)
    arguments = classes, options.get('max_sessions'), options.get('normalization', 'train')
    assert difference(path, slow_store(tiny.root, 'subj01', *arguments)) == ''
    assert list(tmp_path.iterdir()) == [path]


def test_workers_give_the_same(tiny, tmp_path):
    options = dict(roi_classes=CLASSES, image_size=16, progress=False)
    paths = prepare(tiny, tmp_path / 'two', ['subj02', 'subj01'], workers=2, **options)
    single = prepare(tiny, tmp_path / 'one', ['subj02', 'subj01'], **options)
    assert [path.name for path in paths] == ['subj02.h5', 'subj01.h5', 'images_16.h5']
    assert [contents(path) for path in paths] == [contents(path) for path in single]


def test_an_error_of_a_worker_leaves_what_is_complete(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, 'get_context', lambda kind: get_context('fork'))  # for speed
    cut(tree.beta_file('subj02', 1), -1)
    failure = 'subj02.*betas_session01.hdf5 cannot be read'
    with pytest.raises(ValueError, match=failure), pytest.warns(match=f'subj02 failed, the others go on: .*{failure}'):
        prepare(tree, tmp_path / 'store', ['subj02', 'subj01'], workers=2, roi_classes=CLASSES, progress=False)
    assert [path.name for path in (tmp_path / 'store').iterdir()] == ['subj01.h5']
    assert difference(tmp_path / 'store/subj01.h5', slow_store(tree.root, 'subj01')) == ''


def test_a_file_system_that_keeps_open_files(tiny, tmp_path, monkeypatch):
    """NFS removes a file that is open when it is closed, and until then its folder cannot be removed."""
    remove = shutil.rmtree

    def nfs(folder):
        if any(os.path.realpath(f'/proc/self/fd/{n}').startswith(f'{folder}/') for n in os.listdir('/proc/self/fd')):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))
        remove(folder)

    monkeypatch.setattr(extraction.shutil, 'rmtree', nfs)
    path = make(tiny, tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    path.with_suffix('.partial').mkdir()  # as of a run that was killed at its end
    assert make(tiny, tmp_path) == path and list(tmp_path.iterdir()) == [path]
