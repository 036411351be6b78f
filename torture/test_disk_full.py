"""The disk fills up under a run: one line says so, files are whole, and the same command goes on once there is room."""

import errno
import os
import resource
import subprocess

import pytest
from commands import assert_same_end, check_whole, command_of, finish, succeed, unfinished

RUNS = ('prepare', 'pretrain', 'mask_rcnn', 'upernet')


@pytest.fixture()
def small_disk(tmp_path):
    """Function that makes a disk of some bytes in memory, or changes the size of the one it made."""
    folder = tmp_path / 'disk'
    folder.mkdir()

    def resize(size):
        mounted = ['remount,'] if os.path.ismount(folder) else ['']
        command = ['mount', '-t', 'tmpfs', '-o', f'{mounted[0]}size={size}', 'tmpfs', str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f'a file system cannot be mounted here: {done.stderr.strip()}')
        return folder

    yield resize
    if os.path.ismount(folder):
        subprocess.run(['umount', '-l', str(folder)], check=True)


def sizes(folder):
    """Return the bytes of all files of a folder."""
    return [path.stat().st_size for path in folder.rglob('*') if path.is_file()]


def check_error(code, log, folder, number):
    """Check that the last line of the log names a file of the folder and the system's error."""
    last = log.strip().splitlines()[-1]
    assert code in (1, 2) and '.py: error: ' in last and str(folder) in last, log
    assert os.strerror(number) in last or f'Errno {number}' in last, log
    assert not unfinished(folder)


@pytest.mark.parametrize('run', RUNS)
def test_full_disk(run, data, unbroken, small_disk):
    """There is room for the first files of a run, and not for the last."""
    expected = unbroken(run)[0]
    disk = small_disk(int(0.75 * sum(sizes(expected))))
    folder = disk / 'out'
    code, log = finish(command_of(run, folder, data), disk.with_name('full'))
    check_error(code, log, folder, errno.ENOSPC)
    check_whole(expected, folder)
    small_disk('1g')
    succeed(command_of(run, folder, data, resume=True), disk.with_name('again'))
    assert_same_end(expected, folder)


@pytest.mark.parametrize('run', RUNS)
def test_file_size_limit(run, data, unbroken, tmp_path):
    """No file may grow to half the size of the largest that the run writes."""
    expected, folder = unbroken(run)[0], tmp_path / 'out'
    limit = max(sizes(expected)) // 2
    code, log = finish(
        command_of(run, folder, data),
        folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    check_error(code, log, folder, errno.EFBIG)
    check_whole(expected, folder)
    succeed(command_of(run, folder, data, resume=True), folder)
    assert_same_end(expected, folder)
