"""Progress bars appear on a terminal, and nowhere else unless asked for."""

import fcntl
import os
import struct
import subprocess
import sys
import termios

import pytest

CODE = 'from mmnfn.utils import progress_bar\nfor _ in progress_bar(range(3), desc="things"{more}): pass'


@pytest.fixture(autouse=True)
def unasked(monkeypatch):
    monkeypatch.delenv('MMNFN_PROGRESS', raising=False)


def shown(stderr, more=''):
    done = subprocess.run([sys.executable, '-c', CODE.format(more=more)], stderr=stderr, text=True)
    assert done.returncode == 0
    return done.stderr


def on_a_terminal(more=''):
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    shown(terminal, more)
    os.set_blocking(master, False)
    try:
        return os.read(master, 10_000).decode()
    except BlockingIOError:
        return ''
    finally:
        os.close(master)
        os.close(terminal)


def test_bars_are_for_terminals(monkeypatch):
    assert shown(subprocess.PIPE) == ''
    assert 'things: 100%|' in on_a_terminal() and on_a_terminal(', show=False') == ''
    monkeypatch.setenv('MMNFN_PROGRESS', '1')
    assert 'things: 100%|' in shown(subprocess.PIPE) and shown(subprocess.PIPE, ', show=False') == ''
