"""Half-written checkpoints, a clock that is wrong, and data that cannot be written."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from commands import ROOT, prepare, run, succeed, tool, train
from disks import file_size_limit, read_only
from same import contents
from trainings import assert_same_end, load

YEAR = 365 * 24 * 3600


def half(path):
    """Cut a file in half."""
    with open(path, 'r+b') as file:
        file.truncate(path.stat().st_size // 2)


def newest_is_half(work):
    """The newest checkpoint is cut off, and ``last_checkpoint`` names it."""
    half(load_path(work))


def newest_is_empty(work):
    load_path(work).write_bytes(b'')


def newest_is_zeros(work):
    """As after a crash of the machine: the length is right, and nothing was written."""
    size = load_path(work).stat().st_size
    load_path(work).write_bytes(bytes(size))


def pointer_to_nothing(work):
    (work / 'last_checkpoint').write_text(str(work / 'iter_999.pth'))


def pointer_is_empty(work):
    (work / 'last_checkpoint').write_text('')


def load_path(work):
    return work / os.path.basename((work / 'last_checkpoint').read_text())


def checkpoints(work):
    """Those of a training, in order."""
    return sorted(work.glob('iter_*.pth'), key=lambda path: int(path.stem[5:]))


@pytest.fixture()
def work(unbroken, tmp_path):
    """A copy of the unbroken run, with paths of its own."""
    folder = shutil.copytree(unbroken('pretrain')[0], tmp_path / 'work')
    (folder / 'last_checkpoint').write_text(str(load_path(folder)))
    return folder


@pytest.mark.parametrize(
    'damage', [newest_is_half, newest_is_empty, newest_is_zeros, pointer_to_nothing, pointer_is_empty]
)
def test_resume_does_not_take_what_is_not_whole(store, work, damage):
    damage(work)
    before = sorted(path.name for path in work.iterdir())
    outcome = run(train('pretrain', work, f'data_root={store}', resume=True), work)
    last = outcome.output.strip().splitlines()[-1]
    assert outcome.code == 2 and last.startswith('train.py: error: --resume: '), outcome.output
    assert 'Give ' in last and str(work) in last
    assert sorted(path.name for path in work.iterdir()) == before


def test_half_a_checkpoint_that_nothing_names(unbroken, store, work):
    """Later than the one that ``last_checkpoint`` names, and what a killed run left of the next."""
    earlier, later = checkpoints(work)
    (work / 'last_checkpoint').write_text(str(earlier))
    half(later)
    (work / '.iter_999.pth.tmp').write_bytes(b'half')
    shutil.copy(later, work / 'iter_999.pth')
    outcome = succeed(train('pretrain', work, f'data_root={store}', resume=True), work)
    assert f'iter: {earlier.stem[5:]}' in outcome.output, outcome.output
    assert_same_end(unbroken('pretrain')[0], work)


def test_half_a_checkpoint_and_no_pointer(unbroken, store, tmp_path):
    """Training begins anew."""
    work = tmp_path / 'work'
    work.mkdir()
    first = checkpoints(unbroken('pretrain')[0])[0]
    shutil.copy(first, work / 'iter_4.pth')
    half(work / 'iter_4.pth')
    outcome = succeed(train('pretrain', work, f'data_root={store}', resume=True), work)
    assert 'resumed epoch' not in outcome.output
    assert_same_end(unbroken('pretrain')[0], work)


@pytest.fixture(scope='module')
def shifted(tmp_path_factory):
    """Function: environment of a process whose clock is wrong by some seconds."""
    library = tmp_path_factory.mktemp('clock') / 'clock.so'
    command = ['gcc', '-shared', '-fPIC', '-O1', '-o', str(library), str(ROOT / 'torture/clock.c'), '-ldl']
    try:
        subprocess.run(command, check=True)
    except OSError as error:
        pytest.skip(f'gcc is needed to shift the clock: {error}')

    def environment(seconds):
        return dict(LD_PRELOAD=str(library), FAKE_OFFSET=str(seconds))

    year = 'import datetime, time; print(datetime.datetime.now().year, time.gmtime(time.time()).tm_year)'
    years = {
        subprocess.check_output([sys.executable, '-c', year], text=True, env={**os.environ, **environment(k * YEAR)})
        for k in (-20, 0, 20)
    }
    assert len(years) == 3, 'the clock is not shifted'
    return environment


@pytest.mark.parametrize('years', [-20, 20])
def test_clock_moved_in_preparing(world, prepared, shifted, tmp_path, years):
    """The run that goes on has another clock than the interrupted one, and knows what is done all the same."""
    store = tmp_path / 'store'
    # Sessions fit, stores do not.
    assert run(prepare(world, store), store, preexec_fn=file_size_limit(6 << 20)).code == 1
    kept = list(store.glob('subj01.partial/session*.npy'))
    for path in kept:
        os.utime(path, (0, 0) if years > 0 else (2e9, 2e9))
    environment = {**shifted(years * YEAR), 'MMNFN_PROGRESS': '1'}
    reading = succeed(prepare(world, store), store, environment=environment).output.split('subj01 averaging')[0]
    assert len(kept) == 1 and '| 1/1 [' in reading and '| 0/1 [' not in reading, 'the session was read again'
    for path in store.iterdir():
        assert contents(path) == contents(prepared[0] / path.name), path.name


@pytest.mark.parametrize('years', [-20, 20])
def test_clock_moved_in_pretraining(unbroken, store, shifted, work, years):
    earlier, later = checkpoints(work)
    (work / 'last_checkpoint').write_text(str(earlier))
    for path in (later, work / 'backbone_latest.pth', *work.glob('backbone_iter_*')):
        path.unlink()
    os.utime(earlier, (0, 0) if years > 0 else (2e9, 2e9))
    command = train('pretrain', work, f'data_root={store}', resume=True)
    outcome = succeed(command, work, environment=shifted(years * YEAR))
    assert f'iter: {earlier.stem[5:]}' in outcome.output
    assert_same_end(unbroken('pretrain')[0], work)
    assert (work / 'backbone_latest.pth').is_file() and later.is_file()
    years_of_logs = {path.name[:4] for path in work.iterdir() if path.is_dir() and path.name[:8].isdigit()}
    assert len(years_of_logs) == 2, 'the clock was not shifted'


def test_clock_moved_in_a_study(store, unbroken, shifted, tmp_path):
    """What is done is not done again, and a study file that was touched has not changed."""
    options = {'test_dataloader.dataset.data_root': str(store)}
    encoding = dict(config='torture/configs/encoding.py', train=False, options=options)
    given = dict(checkpoint=str(unbroken('pretrain')[0] / 'backbone_latest.pth'), transfer=['encode'])
    swin = dict(pretrain=dict(given=given), transfer=dict(encode=encoding))
    study = tmp_path / 'study.yml'
    study.write_text(yaml.safe_dump(dict(name='toy', work_dir='unused', seeds=[0], backbones=dict(swin=swin))))
    command = tool('experiments/run', study, '--work-dir', tmp_path / 'jobs')
    assert '1 done' in succeed(command, tmp_path / 'run', cwd=ROOT).output
    record = next((tmp_path / 'jobs').rglob('job.json'))
    before = record.read_bytes()
    assert json.loads(before)['seconds'] > 0
    for years in (-20, 20):
        for path in [study, *(tmp_path / 'jobs').rglob('*')]:
            os.utime(path, (1e9, 1e9) if years > 0 else (2e9, 2e9))
        outcome = succeed(command, tmp_path / 'run', cwd=ROOT, environment=shifted(years * YEAR))
        assert outcome.output.strip().splitlines()[-1] == '1 done before'
    assert record.read_bytes() == before


def test_read_only_data(world, prepared, unbroken, tmp_path):
    """Prepare, pretrain, test, detect and segment from trees in which nothing can be written."""
    with read_only(tmp_path / 'world', world) as data, read_only(tmp_path / 'stores', prepared[0]) as stores:
        for folder in (data, stores):
            with pytest.raises(OSError, match='Read-only'):
                (folder / 'new').touch()
        store = tmp_path / 'store'
        succeed(prepare(data, store), store)
        for path in store.iterdir():
            assert contents(path) == contents(prepared[0] / path.name), path.name
        roots = dict(pretrain=stores, mask_rcnn=data / 'coco', upernet=data / 'ADEChallengeData2016')
        for config, root in roots.items():
            work = tmp_path / config
            succeed(train(config, work, f'data_root={root}'), work)
            assert_same_end(unbroken(config)[0], work)
            checkpoint = (work / 'last_checkpoint').read_text()
            arguments = ['--work-dir', work / 'test', '--out', work / 'metrics.json']
            path = ROOT / f'torture/configs/{config}.py'
            succeed(tool('test', path, checkpoint, *arguments, '--cfg-options', f'data_root={root}'), work)
            assert json.loads((work / 'metrics.json').read_text())
        assert len(load(tmp_path / 'pretrain')['state_dict']) > 50
