"""The commands under test, how they are started and killed, and how the folders they write are compared."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from same import assert_same, contents

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'torture/configs'
RUNS = ('prepare', 'pretrain', 'pretrain with 2 processes', 'mask_rcnn', 'upernet')
LIMIT = 300
"""Seconds after which a command is taken to hang."""


def tool(name, *arguments):
    """Return the command line of a script of ``tools/``."""
    return [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, arguments)]


def command_of(run, folder, data, resume=False):
    """Return the command line that makes a run write a folder.

    Args:
        run: One of :data:`RUNS`; other names than 'prepare' begin with a config of this folder.
        folder: Store or work directory.
        data: Folder of the fixture ``data``.
        resume: Continue a training. Preparation does so by itself.
    """
    if run == 'prepare':
        return tool('prepare_nsd', data / 'sim/nsd', folder, '--image-size', 64, '--trials')
    config = run.split()[0]
    root = data / dict(pretrain='store', mask_rcnn='sim/coco', upernet='sim/ADEChallengeData2016')[config]
    options = ['--work-dir', folder, *(['--resume'] if resume else []), '--cfg-options', f'data_root={root}']
    if 'processes' in run:
        return ['bash', *map(str, (ROOT / 'tools/dist_train.sh', CONFIGS / f'{config}.py', 2, *options))]
    return tool('train', CONFIGS / f'{config}.py', *options)


def start(command, folder):
    """Start a command; what it prints is appended to ``FOLDER.log``."""
    environment = dict(os.environ, PYTHON=sys.executable, PYTHONPATH=str(ROOT))
    environment.update(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1')
    with open(f'{folder}.log', 'a') as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def family(process):
    """Return a process and all it has started, directly or not."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(process):
    """Kill a process and all it has started."""
    for member in family(process):
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            pass
    process.wait()


def finish(command, folder):
    """Run a command to its end, and return its exit code and the log."""
    process = start(command, folder)
    try:
        return process.wait(LIMIT), Path(f'{folder}.log').read_text()
    except subprocess.TimeoutExpired:
        pytest.fail(f'{command} hangs:\n' + Path(f'{folder}.log').read_text())
    finally:
        kill(process)


def succeed(command, folder):
    """Run a command that must end well, and return the seconds it took."""
    begin = time.monotonic()
    code, log = finish(command, folder)
    assert code == 0, f'{command}\n{log}'
    return time.monotonic() - begin


def kill_when(condition, command, folder):
    """Kill a command when a condition holds.

    Returns:
        Whether it was killed; False if it ended by itself first, which it must do well.
    """
    process = start(command, folder)
    try:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if condition():
                return True
            if process.poll() is not None:
                assert process.returncode == 0, Path(f'{folder}.log').read_text()
                return False
            time.sleep(0.0005)
        pytest.fail(f'{command} hangs:\n' + Path(f'{folder}.log').read_text())
    finally:
        kill(process)


def load(path):
    """Read a file that PyTorch wrote."""
    return torch.load(path, map_location='cpu', weights_only=False)


def unfinished(folder):
    """Return the files with temporary names in a folder."""
    return [path for path in folder.rglob('*') if path.suffix in ('.tmp', '.part')]


def check_whole(expected, folder):
    """Check that no file under a final name is half-written, and that stores are those of the unbroken run."""
    for path in folder.glob('*.pth'):
        assert load(path)
    for path in folder.glob('*.h5'):
        assert contents(path) == contents(expected / path.name), path.name


def assert_same_end(expected, folder):
    """Check that a folder holds what the unbroken run wrote, bit for bit, and nothing temporary."""
    check_whole(expected, folder)
    for pattern in ('*.h5', '*.pth'):
        assert sorted(p.name for p in folder.glob(pattern)) == sorted(p.name for p in expected.glob(pattern))
    assert not unfinished(folder) and not list(folder.glob('*.partial'))
    if (expected / 'last_checkpoint').exists():
        one, two = (load(path.joinpath('last_checkpoint').read_text()) for path in (expected, folder))
        assert len(one['state_dict']) > 50 and len(one['optimizer']['state']) > 50
        assert [one['meta'][key] for key in ('epoch', 'iter')] == [two['meta'][key] for key in ('epoch', 'iter')]
        for key in one.keys() - {'meta', 'message_hub'}:  # they hold dates, paths and durations
            assert_same(one[key], two[key], key)
