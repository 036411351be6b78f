"""A run is killed; the same command again ends with the bytes of a run that was left alone."""

import random
import time

import psutil
import pytest
from commands import RUNS, assert_same_end, check_whole, command_of, family, kill, kill_when, start, succeed, unfinished


def after(seconds):
    """Return a condition that holds from some seconds on."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@pytest.mark.parametrize('run', RUNS)
def test_a_killed_run_goes_on(run, data, unbroken, tmp_path):
    """Killed while it writes a file, then at random moments; the seed of these is the run's name."""
    expected, seconds = unbroken(run)
    folder, moments = tmp_path / 'out', random.Random(run)
    assert kill_when(lambda: unfinished(folder), command_of(run, folder, data), folder)
    assert unfinished(folder)
    for _ in range(2):
        check_whole(expected, folder)
        kill_when(after(moments.uniform(0.2, 1) * seconds), command_of(run, folder, data, resume=True), folder)
    check_whole(expected, folder)
    succeed(command_of(run, folder, data, resume=True), folder)
    assert_same_end(expected, folder)


@pytest.mark.parametrize('rank', ['0', '1'])
def test_a_run_ends_when_one_of_its_processes_is_killed(rank, data, unbroken, tmp_path):
    run, folder = 'pretrain with 2 processes', tmp_path / 'out'
    process = start(command_of(run, folder, data), folder)
    try:
        end = after(200)
        while not (folder / 'last_checkpoint').exists() and process.poll() is None and not end():
            time.sleep(0.05)
        members = family(process)
        victims = [member for member in members[1:] if member.environ().get('RANK') == rank]
        victims[0].kill()
        assert process.wait(60) != 0
        assert not psutil.wait_procs(members[1:], timeout=10)[1], 'processes of the run are still there'
    finally:
        kill(process)
    log = (tmp_path / 'out.log').read_text()
    assert f'pid: {victims[0].pid}' in log and 'SIGKILL' in log, log
    succeed(command_of(run, folder, data, resume=True), folder)
    assert_same_end(unbroken(run)[0], folder)
