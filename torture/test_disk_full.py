"""The disk fills up under a run: one line says so, files are whole, and the same command goes on once there is room."""

import errno
import os
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


@pytest.mark.parametrize('run', RUNS)
def test_full_disk(run, data, unbroken, small_disk):
    """There is room for the first files of a run, and not for the last."""
    expected = unbroken(run)[0]
    disk = small_disk(int(0.75 * sum(path.stat().st_size for path in expected.rglob('*') if path.is_file())))
    folder = disk / 'out'
    code, log = finish(command_of(run, folder, data), disk.with_name('full'))
    last = log.strip().splitlines()[-1]
    assert code in (1, 2) and '.py: error: ' in last and str(folder) in last, log
    assert os.strerror(errno.ENOSPC) in last or f'Errno {errno.ENOSPC}' in last, log
    assert not unfinished(folder)
    check_whole(expected, folder)
    small_disk('1g')
    succeed(command_of(run, folder, data, resume=True), disk.with_name('again'))
    assert_same_end(expected, folder)
