"""A process of a run dies: the others end soon, the reason is on the screen, and the run can go on."""

import signal
import time

import psutil
import pytest
from child import free_port
from commands import log_of, rank_process, start, succeed, train
from trainings import assert_same_end

from mmnfn.experiments.processes import end_marked, marked

WORKERS = ('train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True')


def wait_for(condition, seconds, what):
    """The first true value of a function."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    pytest.fail(f'after {seconds} s: {what}')


def kill_in_training(command, work, choose):
    """Start a training, kill one of its processes after the first checkpoint, and wait for the end of all.

    Args:
        command: Of the training.
        work: Its folder.
        choose: Function that gives the process to be killed.

    Returns:
        Exit code, seconds from the kill until nothing of the run was left, what was on the screen, and the number of
        the process that was killed.
    """
    process = start(command, work)
    try:
        wait_for(lambda: (work / 'last_checkpoint').exists() or process.poll() is not None, 200, 'no checkpoint')
        victim = choose()
        victim.send_signal(signal.SIGKILL)
        begin = time.monotonic()
        wait_for(lambda: process.poll() is not None and not marked(work), 60, 'processes of the run are still there')
        return process.returncode, time.monotonic() - begin, log_of(work).read_text(), victim.pid
    finally:
        end_marked(work)
        process.wait()


@pytest.mark.parametrize('rank', [0, 1])
def test_a_rank_is_killed(unbroken, store, tmp_path, rank):
    expected, _ = unbroken('pretrain', 2)
    work = tmp_path / 'work'
    command = train('pretrain', work, f'data_root={store}', processes=2)
    code, seconds, screen, pid = kill_in_training(command, work, lambda: rank_process(work, rank))
    print(f'rank {rank}: the other ended after {seconds:.1f} s')
    assert code != 0
    assert f'pid: {pid}' in screen and 'SIGKILL' in screen and f'rank      : {rank}' in screen, screen
    succeed(train('pretrain', work, f'data_root={store}', processes=2, resume=True), work)
    assert_same_end(expected, work)


@pytest.mark.parametrize('config', ['pretrain', 'upernet'])
def test_a_data_worker_is_killed(data_roots, tmp_path, config):
    options = [f'data_root={data_roots[config]}', *WORKERS]
    whole, work = tmp_path / 'whole', tmp_path / 'work'
    succeed(train(config, whole, *options), whole)

    def a_worker():
        return wait_for(lambda: [p for p in marked(work) if p.ppid() != psutil.Process().pid], 20, 'no worker')[0]

    code, seconds, screen, pid = kill_in_training(train(config, work, *options), work, a_worker)
    print(f'{config}: training ended after {seconds:.1f} s')
    assert code not in (0, None)
    assert f'DataLoader worker (pid {pid}) is killed by signal: Killed' in screen, screen
    succeed(train(config, work, *options, resume=True), work)
    assert_same_end(whole, work)


def test_a_machine_is_lost(unbroken, store, tmp_path):
    """Of two, each with a launcher and a process of its own: what is left ends with a reason."""
    expected, _ = unbroken('pretrain', 2)
    work = tmp_path / 'work'
    nodes = [tmp_path / 'node0', tmp_path / 'node1']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('NNODES', '2')
        patch.setenv('PORT', str(free_port()))
        command = train('pretrain', work, f'data_root={store}', processes=2)
        command[3] = '1'
        launchers = [start(command, node, environment=dict(NODE_RANK=str(k))) for k, node in enumerate(nodes)]
    try:
        wait_for(lambda: (work / 'last_checkpoint').exists(), 200, log_of(nodes[0]).read_text())
        end_marked(nodes[1])
        begin = time.monotonic()
        wait_for(lambda: launchers[0].poll() is not None and not marked(nodes[0]), 60, 'the other machine goes on')
        print(f'the other machine ended after {time.monotonic() - begin:.1f} s')
    finally:
        for node in nodes:
            end_marked(node)
    assert launchers[0].returncode != 0
    screen = log_of(nodes[0]).read_text()
    assert 'Connection closed by peer' in screen or 'Connection reset by peer' in screen, screen
    succeed(train('pretrain', work, f'data_root={store}', processes=2, resume=True), work)
    assert_same_end(expected, work)
