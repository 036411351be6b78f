"""Running the project's commands as a user does, and killing them."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from mmnfn.experiments.processes import MARK, end_marked, marked

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'torture/configs'
LIMIT = 300
"""Seconds after which a command is taken for one that hangs."""
KILLS = []
"""What was killed and how long it had been running, for the summary."""


class Outcome(NamedTuple):
    """How a command ended: exit code, what it printed, and seconds."""

    code: int
    output: str
    seconds: float


def tool(name, *arguments):
    """Command line of a script of ``tools/``."""
    return [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, arguments)]


def prepare(world, store):
    """Command line of a preparation with all that it can write."""
    return tool('prepare_nsd', world / 'nsd', store, '--image-size', 64, '--trials')


def train(config, work, *options, processes=1, resume=False):
    """Command line of a training with a config of this folder; ``options`` are those of ``--cfg-options``."""
    arguments = ['--work-dir', str(work), *(['--resume'] if resume else []), '--cfg-options', *options]
    if processes == 1:
        return tool('train', CONFIGS / f'{config}.py', *arguments)
    script = str(ROOT / 'tools/dist_train.sh')
    return ['bash', script, str(CONFIGS / f'{config}.py'), str(processes), *arguments]


def start(command, folder, **options):
    """Start a command whose processes carry the mark of a folder; its output is appended to ``FOLDER.log``."""
    environment = {key: value for key, value in os.environ.items() if key not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')}
    environment.update(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', PYTHON=sys.executable, PYTHONPATH=str(ROOT))
    environment.update(options.pop('environment', {}), **{MARK: str(folder)})
    with open(log_of(folder), 'a') as log:
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True, **options
        )


def log_of(folder):
    """Where the output of the commands of a folder is."""
    return folder.with_name(folder.name + '.log')


def run(command, folder, limit=LIMIT, **options):
    """Run a command to its end."""
    position = log_of(folder).stat().st_size if log_of(folder).exists() else 0
    begin = time.monotonic()
    process = start(command, folder, **options)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        pytest.fail(f'{command} did not end within {limit} s:\n{log_of(folder).read_bytes()[position:].decode()}')
    finally:
        end_marked(folder)
        process.wait()
    return Outcome(code, log_of(folder).read_bytes()[position:].decode(), time.monotonic() - begin)


def succeed(command, folder, **options):
    """Run a command that must end well."""
    outcome = run(command, folder, **options)
    assert outcome.code == 0, f'{command}\n{outcome.output}'
    return outcome


def killed(command, folder, seconds, rank=None):
    """Start a command and kill all its processes after some time, or only that of a rank if there is one by then.

    Returns:
        None, or the seconds after which it had ended by itself.
    """
    begin = time.monotonic()
    process = start(command, folder)
    try:
        try:
            process.wait(seconds)
            return time.monotonic() - begin
        except subprocess.TimeoutExpired:
            pass
        victim = rank_process(folder, rank)
        if victim is None:
            end_marked(folder)
        else:
            victim.send_signal(signal.SIGKILL)
        code = process.wait(60)
    finally:
        end_marked(folder)
    if victim is not None and code == 0:  # the launcher was about to end well
        return time.monotonic() - begin
    KILLS.append((folder.name, seconds))
    return None


def rank_process(folder, rank):
    """The process of a rank, or None."""
    for process in marked(folder):
        try:
            if rank is not None and process.environ().get('RANK') == str(rank):
                return process
        except (psutil.Error, OSError):
            continue
    return None


def kill_and_resume(command, folder, seed, kills, seconds, rank=None):
    """Kill a command at moments drawn uniformly over the time that the unbroken one takes, then let it end.

    Where a run ends before its moment, because the machine was faster than before or little was left to do, all begins
    anew with earlier moments.

    Args:
        command: Function that makes the command line; its argument is whether to resume.
        folder: What it writes.
        seed: Of the moments.
        kills: How often it is killed before it may end.
        seconds: What the unbroken run takes.
        rank: Of the process that is killed; None for all.
    """
    generator = random.Random(seed)
    fractions = [generator.random() for _ in range(kills)]
    for _ in range(6):
        shutil.rmtree(folder, ignore_errors=True)
        count = len(KILLS)
        for number, part in enumerate(fractions):
            ended = killed(command(number > 0), folder, part * seconds, rank)
            if ended is not None:
                del KILLS[count:]
                seconds = 0.95 * min(seconds, ended)
                break
        else:
            return succeed(command(True), folder)
    pytest.fail(f'the command always ended before it was killed:\n{log_of(folder).read_text()}')
