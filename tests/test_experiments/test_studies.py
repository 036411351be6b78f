"""Studies expand as written, run in order, skip what is done, and go on after a kill."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from mmnfn.experiments import launch, read_study
from mmnfn.experiments.job import run_job
from mmnfn.experiments.processes import Interrupted, end_marked, marked, run_marked

needs_submitit = pytest.mark.skipif(sys.version_info < (3, 10), reason='submitit fails on Python 3.9')
ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
import argparse, json, os, sys, time
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('--work-dir')
parser.add_argument('--resume')
parser.add_argument('--cfg-options', nargs='*', default=[])
args = parser.parse_args()
folder = Path(args.work_dir)
with open(os.environ['TOY_LOG'], 'a') as log:
    log.write(f'train {folder.parent.parent.name} {folder.parent.name} {folder.name} {" ".join(args.cfg_options)}\\n')
if 'fail' in folder.parts:
    sys.exit(3)
if os.environ.get('TOY_SLEEP') and not (folder / 'slept').exists():
    (folder / 'slept').touch()
    time.sleep(60)
(folder / 'epoch_1.pth').write_text('weights')
(folder / 'backbone_latest.pth').write_text('weights')
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
"""
TEST = """
import argparse, json, os
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('checkpoint')
parser.add_argument('--work-dir')
parser.add_argument('--out')
parser.add_argument('--dump')
parser.add_argument('--cfg-options', nargs='*', default=[])
args = parser.parse_args()
assert Path(args.checkpoint).read_text() == 'weights'
with open(os.environ['TOY_LOG'], 'a') as log:
    log.write(f'test {args.checkpoint}\\n')
Path(args.out).write_text(json.dumps(dict(score=1.0)))
if args.dump:
    Path(args.dump).write_text('embeddings')
"""
READ = """
from pathlib import Path
from rich.console import Console
from mmnfn.experiments import launch, read_study
from mmnfn.experiments.job import run_job
study = read_study({study!r}, Path({root!r}), {work!r})
"""
STUDY = dict(
    name='toy',
    work_dir='unused',
    seeds=[0, 5],
    backbones=dict(
        swin=dict(
            pretrain=dict(
                nfn=dict(config='configs/pretrain.py', options={'data.shuffle': '{seed}'}),
                given=dict(checkpoint='given.pth', transfer=['encode']),
            ),
            transfer=dict(
                detect=dict(config='configs/detect.py'), encode=dict(config='configs/encode.py', train=False)
            ),
        )
    ),
)


@pytest.fixture()
def toy(tmp_path, monkeypatch):
    """A repository of toy tools, and a function that reads a study in it."""
    root = tmp_path / 'root'
    for folder in ('tools', 'configs'):
        (root / folder).mkdir(parents=True)
    (root / 'tools/train.py').write_text(TRAIN)
    (root / 'tools/test.py').write_text(TEST)
    for name in ('pretrain', 'detect', 'encode'):
        (root / f'configs/{name}.py').write_text(f'name = {name!r}\n')
    (tmp_path / 'given.pth').write_text('weights')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TOY_LOG', str(tmp_path / 'log'))

    def read(**changes):
        (tmp_path / 'study.yml').write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return read_study(tmp_path / 'study.yml', root, tmp_path / 'work')

    return read


def log():
    return Path('log').read_text().splitlines() if Path('log').exists() else []


def run(study, workers=1, redo=False, **selection):
    return launch.run_locally(study, launch.select(study, **selection), Console(quiet=True), workers, redo)


def test_expansion(toy):
    study = toy()
    assert [job.name for job in study.jobs] == [
        'swin/nfn/seed0/pretrain',
        'swin/nfn/seed0/detect',
        'swin/nfn/seed0/encode',
        'swin/nfn/seed5/pretrain',
        'swin/nfn/seed5/detect',
        'swin/nfn/seed5/encode',
        'swin/given/seed0/encode',
        'swin/given/seed5/encode',
    ]
    pretrain, detect, encode = study.jobs[3:6]
    assert pretrain.labels == dict(backbone='swin', row='nfn', seed='5', task='pretrain') and pretrain.needs == ()
    assert pretrain.commands[0][-3:] == ('--cfg-options', 'data.shuffle=5', 'randomness.seed=5')
    assert detect.needs == encode.needs == ('swin/nfn/seed5/pretrain',)
    weights = f'{pretrain.folder}/backbone_latest.pth'
    assert f'model.backbone.init_cfg.checkpoint={weights}' in detect.commands[0]
    assert len(encode.commands) == 1 and encode.commands[0][3] == weights
    assert study.jobs[-1].needs == () and study.jobs[-1].commands[0][3] == 'given.pth'


def test_a_run_does_everything_once(toy):
    study = toy()
    assert set(run(study).values()) == {'done'}
    lines = log()
    assert sum(line.startswith('train') for line in lines) == 4 and sum(line.startswith('test') for line in lines) == 8
    assert lines[0] == 'train nfn seed0 pretrain data.shuffle=0 randomness.seed=0'
    record = study.jobs[0].record()
    assert record.status == 'done' and record.labels['row'] == 'nfn' and record.seconds > 0
    assert '$ ' in (study.jobs[0].folder / 'job.log').read_text()
    assert json.loads((study.jobs[1].folder / 'metrics.json').read_text()) == dict(score=1.0)
    assert run(study) == {} and log() == lines
    (study.jobs[1].folder / 'metrics.json').unlink()
    assert run(study) == {'swin/nfn/seed0/detect': 'done'}


def test_jobs_beside_each_other(toy, monkeypatch, tmp_path):
    """Two at a time, none before what it needs, and with the machine divided."""
    monkeypatch.setattr(launch.torch.cuda, 'device_count', lambda: 3)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5,6')
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    waits = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS']); time.sleep(1)\n"
    for script in ('train', 'test'):
        with open(tmp_path / f'root/tools/{script}.py', 'a') as file:
            file.write(waits)
    study = toy()
    assert set(run(study, workers=2).values()) == {'done'}
    texts = [(job.folder / 'job.log').read_text() for job in study.jobs]
    shares = {line for text in texts for line in text.splitlines() if line[:1].isdigit()}
    assert shares == {'4,6 3', '5 3'}, 'one after another, all would have the same share'
    lines = [line.split() for line in log()]
    for seed in ('seed0', 'seed5'):
        order = [line[3] for line in lines if line[:3] == ['train', 'nfn', seed]]
        assert order == ['pretrain', 'detect']
    with pytest.raises(ValueError, match='--jobs 2: jobs of 2 processes need 4 GPUs, but there are 3'):
        launch.divided_machine(2, 2)


def test_cores_are_divided_where_there_are_no_gpus(monkeypatch):
    monkeypatch.setattr(launch.torch.cuda, 'device_count', lambda: 0)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(launch, 'available_cores', lambda: 8)
    (share, *others) = launch.divided_machine(2)
    assert len(others) == 1 and share.environment(1) == dict(OMP_NUM_THREADS='4')
    assert share.environment(2) == dict(OMP_NUM_THREADS='2')
    (alone,) = launch.divided_machine(1)
    assert alone.environment(2) == {}, 'dist_train.sh divides the machine itself'


def test_a_failure_blocks_what_needs_it_and_nothing_else(toy):
    rows = dict(fail=dict(config='configs/pretrain.py'), **STUDY['backbones']['swin']['pretrain'])
    study = toy(seeds=[0], backbones=dict(swin=dict(STUDY['backbones']['swin'], pretrain=rows)))
    states = run(study)
    assert states['swin/fail/seed0/pretrain'] == 'failed' and states['swin/fail/seed0/detect'] == 'blocked'
    assert {state for name, state in states.items() if 'fail' not in name} == {'done'}
    record = study.jobs[0].record()
    assert record.status == 'failed' and 'exit code 3 of: ' in record.message and 'job.log' in record.message


def test_what_needs_a_changed_job_is_not_taken_for_done(toy, tmp_path):
    run(toy())
    (tmp_path / 'root/configs/pretrain.py').write_text("name = 'pretrain'\nlr = 2\n")
    study = toy()
    stale = [job.name for job in study.jobs if job.state() == 'stale']
    assert stale == [job.name for job in study.jobs if '/nfn/' in job.name] and len(stale) == 6
    assert set(run(study, redo=True)) == set(stale)


def test_a_running_study_keeps_its_folders(toy, tmp_path):
    """--redo beside a run must not remove what the run works on."""
    run(toy())
    (tmp_path / 'root/configs/detect.py').write_text("name = 'detect'\nlr = 2\n")
    study = toy()
    with launch.locked(study.work_dir), pytest.raises(BlockingIOError):
        run(study, redo=True)
    assert all(job.folder.is_dir() for job in study.jobs)


def test_a_config_that_changes_under_way_is_noticed(toy, tmp_path):
    study = toy(seeds=[0])
    (tmp_path / 'root/configs/detect.py').write_text("name = 'detect'\nlr = 2\n")
    states = run(study)
    assert [name for name, state in states.items() if state == 'failed'] == ['swin/nfn/seed0/detect']
    assert 'detect.py was changed after the study was read' in study.jobs[1].record().message
    (tmp_path / 'root/configs/detect.py').write_text("# the same in other words\nname = str('detect')\n")
    assert set(run(study).values()) == {'done'}


def test_other_settings_are_not_taken_for_done(toy, tmp_path):
    run(toy())
    (tmp_path / 'root/configs/detect.py').write_text("name = 'detect'\nlr = 2\n")
    study = toy()
    assert [job.name for job in study.jobs if job.state() == 'stale'] == [
        'swin/nfn/seed0/detect',
        'swin/nfn/seed5/detect',
    ]
    with pytest.raises(ValueError, match='2 jobs were done with other settings, e.g. swin/nfn/seed0/detect'):
        launch.pending(study.jobs)
    assert [job.name for job in launch.pending(study.jobs, redo=True)] == [
        'swin/nfn/seed0/detect',
        'swin/nfn/seed5/detect',
    ]
    assert not study.jobs[1].folder.exists()


def test_a_study_may_be_moved(toy, tmp_path, monkeypatch):
    """The repository and the study's folder may be elsewhere later, and what is done is still done."""
    run(toy())
    (tmp_path / 'other').mkdir()
    for name in ('root', 'work'):
        (tmp_path / name).rename(tmp_path / 'other' / name)
    moved = read_study(tmp_path / 'study.yml', tmp_path / 'other/root', tmp_path / 'other/work')
    assert {job.state() for job in moved.jobs} == {'done'}


def test_a_killed_run_goes_on(toy, tmp_path):
    study = toy(seeds=[0])
    code = READ.format(study=str(tmp_path / 'study.yml'), root=str(tmp_path / 'root'), work=str(tmp_path / 'work'))
    code += 'launch.run_locally(study, study.jobs, Console())'
    process = subprocess.Popen([sys.executable, '-c', code], env=dict(os.environ, TOY_SLEEP='1'), cwd=tmp_path)
    for _ in range(600):
        if (study.jobs[0].folder / 'slept').exists():
            break
        time.sleep(0.1)
    with pytest.raises(BlockingIOError, match='is being run by another process'):
        launch.run_locally(study, study.jobs, Console(quiet=True))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert study.jobs[0].state() == 'interrupted'
    (child,) = marked(study.jobs[0].folder)  # the training goes on without its runner
    assert set(run(study).values()) == {'done'} and len(log()) > 5
    assert not child.is_running() or child.status() == 'zombie', 'it was ended before the job started again'


def test_workers_of_a_dead_launcher_are_found(toy, tmp_path):
    """Newer torchrun gives its workers sessions of their own, and a killed one leaves them behind."""
    job = toy(seeds=[0]).jobs[0]
    job.folder.mkdir(parents=True)
    code = 'import subprocess, sys; subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], '
    code += 'start_new_session=True)'
    with open(os.devnull, 'w') as nowhere:
        assert run_marked(job.folder, [sys.executable, '-c', code], nowhere, os.environ, threading.Event()) == 0
    (orphan,) = marked(job.folder)
    end_marked(job.folder)
    assert marked(job.folder) == [] and (not orphan.is_running() or orphan.status() == 'zombie')


def test_nothing_is_started_after_a_stop(toy):
    job, stop = toy(seeds=[0]).jobs[0], threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        run_job(job, stop=stop)
    assert log() == [] and job.state() == 'interrupted'


@pytest.mark.parametrize('call', ['run_job(study.jobs[0])', 'launch.run_locally(study, study.jobs, Console(), 2)'])
def test_interrupt_ends_the_children(toy, tmp_path, monkeypatch, call):
    """Ctrl-C must not leave a training behind."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    study = toy(seeds=[0])
    monkeypatch.setenv('TOY_SLEEP', '1')
    code = READ.format(study=str(tmp_path / 'study.yml'), root=str(tmp_path / 'root'), work=str(tmp_path / 'work'))
    # a shell starts what it runs in the background with Ctrl-C ignored, and the tests may run there
    code += 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler); ' + call
    process = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (study.jobs[0].folder / 'slept').exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    assert study.jobs[0].state() == 'interrupted'
    left = subprocess.run(['pgrep', '-f', str(tmp_path / 'root/tools/train.py')], capture_output=True, text=True)
    assert left.stdout == ''


def test_commands_by_hand(toy, tmp_path):
    study = toy(seeds=[0])
    script = '\n'.join(['set -e', *launch.command_lines(study.jobs)])
    for job in study.jobs:
        job.folder.mkdir(parents=True)
    subprocess.run(['bash', '-c', script], check=True, cwd=tmp_path)
    assert all(path.is_file() for job in study.jobs for path in job.outputs)


@needs_submitit
def test_submitit(toy):
    pytest.importorskip('submitit')
    study = toy(seeds=[0], slurm=dict(timeout_min=5))
    ids = launch.submit(study, study.jobs, cluster='debug')
    assert [name for name, _ in ids] == [job.name for job in study.jobs]
    assert all(job.state() == 'done' for job in study.jobs)
    (study.jobs[0].folder / 'epoch_1.pth').write_text('other')
    with pytest.raises(RuntimeError, match='swin/nfn/seed0/pretrain: exit code 1'):
        launch.run_or_raise(study.jobs[0]._replace(commands=(study.jobs[0].commands[1],)))


@needs_submitit
def test_slurm_jobs_wait_for_what_they_need(toy, monkeypatch, tmp_path):
    submitit = pytest.importorskip('submitit')
    asked = []

    class Executor:
        def __init__(self, folder, cluster):
            assert cluster == 'slurm'

        def update_parameters(self, **parameters):
            asked.append(parameters)

        def submit(self, function, job):
            return type('Submitted', (), dict(job_id=f'{100 + len(asked)}'))

    monkeypatch.setattr(submitit, 'AutoExecutor', Executor)
    study = toy(seeds=[0], slurm=dict(slurm_partition='gpu', slurm_additional_parameters=dict(qos='low')))
    launch.submit(study, study.jobs)
    assert [p['slurm_partition'] for p in asked] == ['gpu'] * 4 and asked[0]['name'] == 'swin_nfn_seed0_pretrain'
    assert [p['slurm_additional_parameters'].get('dependency') for p in asked] == [
        None,
        'afterok:101',
        'afterok:101',
        None,
    ]
    assert asked[1]['slurm_additional_parameters']['qos'] == 'low'

    # again, while Slurm still has the pretraining and what needs it: only the last job was lost
    (tmp_path / 'squeue').write_text('#!/bin/sh\nfor n in 101 102 103; do echo $n; done\n')
    (tmp_path / 'squeue').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert launch.submit(study, study.jobs) == [('swin/given/seed0/encode', '105')] and len(asked) == 5
    assert json.loads((study.work_dir / 'slurm/jobs.json').read_text())['swin/nfn/seed0/pretrain'] == '101'


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(seeds=3), 'seeds in .* must be a list of different whole numbers, but is 3'),
        (dict(seeds=[0, 0]), r'seeds in .* must be a list of different whole numbers, but is \[0, 0\]'),
        (dict(seeds=[True]), 'seeds in .* must be a list of different whole numbers'),
        (dict(name=5), 'name must be a text, but is 5'),
        (dict(work_dir=5), 'work_dir must be a path, but is 5'),
        (dict(processes='two'), "processes must be a whole number, but is 'two'"),
        (dict(processes=0), 'processes must be at least 1, but is 0'),
        (dict(backbones=[1]), r'backbones must be a mapping, but is \[1\]'),
        (dict(backbones=dict(a={})), 'has no pretrain under any of its backbones'),
        (dict(backbones=dict(a=dict(pretrain=[1]))), r'a, pretrain must be a mapping, but is \[1\]'),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(config=3))))),
            'a.pretrain.b, config must be a path, but is 3',
        ),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(config='c', options=[1]))))),
            r'a.pretrain.b, options must be a mapping, but is \[1\]',
        ),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(checkpoint='c', transfer=None))))),
            'a.pretrain.b, transfer must be a list, but is None',
        ),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(checkpoint='my file.pth'))))),
            "'my file.pth' has a blank, a comma",
        ),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(checkpoint='c')), transfer=dict(pretrain={})))),
            "a.transfer: 'pretrain' is the",
        ),
        (dict(backbones={}), 'has no backbones'),
        (dict(seed=[1]), "unknown entry 'seed'; is 'seeds' meant"),
        (dict(backbones=dict(a=dict(pretrain=dict(b={})))), 'a.pretrain.b needs one of config, random and checkpoint'),
        (dict(backbones=dict(a=dict(pretrain=dict(b=dict(config='c.py'))))), "names the config 'c.py'"),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(checkpoint='c', transfer=['x']))))),
            "a.pretrain.b.transfer names 'x', which is no transfer",
        ),
        (dict(backbones=dict(a=dict(pretrain=dict(b='c')))), 'a.pretrain.b must be a mapping'),
    ],
)
def test_wrong_studies_are_named(toy, changes, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        toy(**changes)


def test_options_are_filled_in_and_passed_on(toy):
    """{seed} also within a list; other braces are left alone."""
    row = dict(config='configs/pretrain.py', options={'a': ['{seed}', 2], 'b': '{epoch}'})
    study = toy(seeds=[7], backbones=dict(swin=dict(pretrain=dict(nfn=row))))
    assert study.jobs[0].commands[0][-3:] == ("a=['7',2]", 'b={epoch}', 'randomness.seed=7')


@pytest.mark.parametrize('text', ['[]', 'null', '{"name": "a"}', '{', '{"unknown": 1}'])
def test_a_damaged_record_is_named(toy, text):
    study = toy(seeds=[0])
    study.jobs[0].folder.mkdir(parents=True)
    (study.jobs[0].folder / 'job.json').write_text(text)
    with pytest.raises(ValueError, match='nfn/seed0/pretrain/job.json is no record of a job'):
        run(study)


def test_wrong_selection_is_named(toy):
    with pytest.raises(ValueError, match="--only: no job of .* has 'xyz' in its name; the first is swin/nfn"):
        launch.select(toy(), 'xyz')
    assert [job.name for job in launch.select(toy(), 'seed5/detect')] == [
        'swin/nfn/seed5/pretrain',
        'swin/nfn/seed5/detect',
    ]


@pytest.mark.parametrize('path', sorted((ROOT / 'studies').glob('*.yml')), ids=lambda path: path.stem)
def test_shipped_studies_expand(path):
    study = read_study(path, ROOT)
    assert len({job.name for job in study.jobs}) == len(study.jobs) > 0
