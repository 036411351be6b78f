"""Fifty SIGKILLs at random moments; what goes on after them ends with the result of the run that was left alone."""

import shutil

import pytest
from commands import kill_and_resume, prepare, succeed, train
from same import contents
from trainings import assert_same_end

# (seed, kills before the run may end); the seeds are those of the moments.
PREPARE = [(seed, 1) for seed in range(8)] + [(seed, 2) for seed in range(8, 11)] + [(seed, 3) for seed in (11, 12)]
PRETRAIN = [(seed, 1) for seed in range(20, 26)] + [(seed, 3) for seed in (26, 27)]
TWO_PROCESSES = [(seed, 1, rank) for seed, rank in ((30, None), (31, 0), (32, 1), (33, None))] + [(34, 2, None)]
DOWNSTREAM = [('mask_rcnn', seed, kills) for seed, kills in ((40, 1), (41, 1), (42, 1), (43, 1), (44, 2))]
DOWNSTREAM += [('upernet', seed, kills) for seed, kills in ((50, 1), (51, 1), (52, 1), (53, 1), (54, 2))]


def test_there_are_fifty():
    kills = [case[1] for case in PREPARE + PRETRAIN + TWO_PROCESSES] + [case[2] for case in DOWNSTREAM]
    assert sum(kills) == 50


@pytest.mark.parametrize('config', ['pretrain', 'mask_rcnn', 'upernet'])
def test_last_but_one_checkpoint(unbroken, data_roots, tmp_path, config):
    """A kill may come before the first checkpoint; this one is certain to come in the middle of training."""
    expected, _ = unbroken(config)
    work = shutil.copytree(expected, tmp_path / config)
    earlier, later = sorted(work.glob('iter_*.pth'), key=lambda path: int(path.stem[5:]))
    (work / 'last_checkpoint').write_text(str(earlier))
    later.unlink()
    outcome = succeed(train(config, work, f'data_root={data_roots[config]}', resume=True), work)
    assert f'iter: {earlier.stem[5:]}' in outcome.output, outcome.output
    assert_same_end(expected, work)


@pytest.mark.parametrize('seed, kills', PREPARE)
def test_prepare(world, prepared, tmp_path, seed, kills):
    expected, seconds = prepared
    store = tmp_path / 'prepare'
    kill_and_resume(lambda resume: prepare(world, store), store, seed, kills, seconds)
    assert sorted(path.name for path in store.iterdir()) == ['images_64.h5', 'subj01.h5', 'subj02.h5']
    for path in store.iterdir():
        assert contents(path) == contents(expected / path.name), path.name


def check_training(config, seed, kills, unbroken, data_root, tmp_path, processes=1, rank=None):
    expected, seconds = unbroken(config, processes)
    work = tmp_path / f'{config}_{processes}'

    def command(resume):
        return train(config, work, f'data_root={data_root}', processes=processes, resume=resume)

    kill_and_resume(command, work, seed, kills, seconds, rank)
    assert_same_end(expected, work)
    assert not list(work.glob('.*.tmp'))


@pytest.mark.parametrize('seed, kills', PRETRAIN)
def test_pretrain(unbroken, store, tmp_path, seed, kills):
    check_training('pretrain', seed, kills, unbroken, store, tmp_path)


@pytest.mark.parametrize('seed, kills, rank', TWO_PROCESSES)
def test_pretrain_with_two_processes(unbroken, store, tmp_path, seed, kills, rank):
    """All processes are killed, or that of one rank, whose launcher then ends the other."""
    check_training('pretrain', seed, kills, unbroken, store, tmp_path, 2, rank)


@pytest.mark.parametrize('config, seed, kills', DOWNSTREAM)
def test_downstream(unbroken, data_roots, tmp_path, config, seed, kills):
    check_training(config, seed, kills, unbroken, data_roots[config], tmp_path)
