"""The disk is full while a training writes: it says so, and goes on to the same end when there is room."""

import pytest
from commands import run, succeed, train
from disks import file_size_limit, nearly_full, small_disk
from trainings import assert_same_end, load


@pytest.fixture(scope='module')
def sizes(unbroken):
    """Bytes of a checkpoint and of an export."""
    work, _ = unbroken('pretrain')
    return max(path.stat().st_size for path in work.glob('iter_*.pth')), (work / 'backbone_latest.pth').stat().st_size


def check_error(outcome, name):
    # Python's logging says on the screen what it cannot write, with a traceback, and goes on.
    assert outcome.code == 2 and outcome.output.count('Traceback') == outcome.output.count('--- Logging error ---')
    last = outcome.output.strip().splitlines()[-1]
    assert last.startswith('train.py: error: ') and str(name) in last and 'ree space' in last, outcome.output


def check_resumed(unbroken, work, store):
    """What is there is whole, and the same command with --resume ends well."""
    assert not list(work.glob('.*.tmp'))
    if (work / 'last_checkpoint').exists():
        assert len(load(work)['optimizer']['state']) > 50
    succeed(train('pretrain', work, f'data_root={store}', resume=True), work)
    expected, _ = unbroken('pretrain')
    assert_same_end(expected, work)
    assert not list(work.glob('.*.tmp'))


@pytest.mark.parametrize('checkpoints, exports, name', [(0.5, 0, 'iter_4.pth'), (1, 0.5, 'backbone_iter_4.pth')])
def test_first_files_do_not_fit(unbroken, store, sizes, tmp_path, checkpoints, exports, name):
    """The first checkpoint; or its export, while the checkpoint is whole."""
    with small_disk(tmp_path / 'disk') as disk:
        work = disk / 'work'
        with nearly_full(disk, int(checkpoints * sizes[0] + exports * sizes[1]) + 200_000):
            check_error(run(train('pretrain', work, f'data_root={store}'), tmp_path / 'first'), work / name)
        assert (work / 'last_checkpoint').exists() == (checkpoints == 1)
        check_resumed(unbroken, work, store)


def test_a_later_checkpoint_does_not_fit(unbroken, store, sizes, tmp_path):
    """The one before stays."""
    with small_disk(tmp_path / 'disk') as disk:
        work = disk / 'work'
        with nearly_full(disk, int(1.5 * sizes[0] + 2 * sizes[1]) + 500_000):
            check_error(run(train('pretrain', work, f'data_root={store}'), tmp_path / 'first'), work / 'iter_8.pth')
        assert (work / 'last_checkpoint').read_text() == str(work / 'iter_4.pth')
        check_resumed(unbroken, work, store)


def test_logs_do_not_fit(unbroken, store, tmp_path):
    """No room even for the config that the run keeps."""
    with small_disk(tmp_path / 'disk') as disk:
        work = disk / 'work'
        with nearly_full(disk, 0):
            check_error(run(train('pretrain', work, f'data_root={store}'), tmp_path / 'first'), work)
        check_resumed(unbroken, work, store)


@pytest.mark.parametrize('config', ['pretrain', 'mask_rcnn', 'upernet'])
def test_file_size_limit(unbroken, data_roots, tmp_path, config):
    """Files may not be as large as a checkpoint."""
    work, options = tmp_path / 'work', [f'data_root={data_roots[config]}']
    check_error(run(train(config, work, *options), work, preexec_fn=file_size_limit(1 << 20)), work / 'iter_')
    succeed(train(config, work, *options, resume=True), work)
    assert_same_end(unbroken(config)[0], work)
