"""Files are replaced as a whole; progress bars appear on terminals only."""

import errno
import io
import os
import resource
import signal
import sys

import pytest
from child import in_child

from mmnfn.utils import atomic_write, is_disk_full, progress_bar


def overwrite(path, content, limit=None, die=False):
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
        if die:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_write_that_dies_leaves_the_old_file(tmp_path):
    path = tmp_path / 'folder/file'
    overwrite(path, b'old')
    assert in_child(overwrite, path, b'new', None, True) == (None, signal.SIGKILL)
    assert path.read_bytes() == b'old'
    overwrite(path, b'newer')
    assert path.read_bytes() == b'newer' and list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path):
    path = tmp_path / 'file'
    overwrite(path, b'old')
    error, _ = in_child(overwrite, path, bytes(2000), 1000)
    assert isinstance(error, OSError) and error.errno == errno.EFBIG and is_disk_full(error)
    assert error.filename == str(path) and path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


class Screen(io.StringIO):
    """A terminal, or a log file."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.mark.parametrize('show', [True, False])
@pytest.mark.parametrize('terminal, asked, expected', [(True, None, True), (False, None, False), (False, '1', True)])
def test_bars_are_shown_on_terminals_and_where_asked_for(monkeypatch, terminal, asked, expected, show):
    monkeypatch.delenv('MMNFN_PROGRESS', raising=False)
    if asked:
        monkeypatch.setenv('MMNFN_PROGRESS', asked)
    monkeypatch.setattr(sys, 'stderr', Screen(terminal))
    assert list(progress_bar(range(3), desc='things', show=show)) == [0, 1, 2]
    assert ('things: 100%|' in sys.stderr.getvalue()) == (expected and show)
