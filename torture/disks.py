"""Disks that are full, and trees that cannot be written."""

import os
import resource
import subprocess
from contextlib import contextmanager

import pytest


def mount(*arguments):
    """Run ``mount``; skips where that is not allowed."""
    done = subprocess.run(['mount', *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'a file system cannot be mounted here: {done.stderr.strip()}')


@contextmanager
def mounted(folder, *arguments):
    """A folder on which something is mounted."""
    folder.mkdir()
    mount(*arguments, folder)
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', str(folder)], check=True)


def small_disk(folder):
    """A disk of 250 MB in memory."""
    return mounted(folder, '-t', 'tmpfs', '-o', 'size=250m', 'tmpfs')


def read_only(folder, source):
    """A folder that shows another one, in which nothing can be written."""
    return mounted(folder, '--bind', '-o', 'ro', source)


def free_bytes(folder):
    """What can be written to a disk."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


@contextmanager
def nearly_full(disk, room):
    """Within the block a disk has room for so many bytes."""
    filler = disk / 'filler'
    with open(filler, 'wb') as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free_bytes(disk) - room))
    try:
        yield
    finally:
        filler.unlink()


def file_size_limit(limit):
    """For ``preexec_fn``: no file of the process may grow beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
