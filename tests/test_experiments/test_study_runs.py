"""Studies run in order and skip what is done, here, by hand and through Slurm."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from toy_study import STUDY, log, run

from mmnfn.experiments import launch, read_study, slurm
from mmnfn.experiments.job import run_job

OTHER = dict(config='configs/pretrain.py', options={'lr': 0.5})
needs_submitit = pytest.mark.skipif(sys.version_info < (3, 10), reason='submitit fails on Python 3.9')


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
    launch.remove_stale(study.jobs)
    assert [job.folder.exists() for job in study.jobs[:3]] == [True, False, True]


def test_a_study_may_be_moved(toy, tmp_path, monkeypatch):
    """The repository and the study's folder may be elsewhere later, and what is done is still done."""
    run(toy())
    (tmp_path / 'other').mkdir()
    for name in ('root', 'work'):
        (tmp_path / name).rename(tmp_path / 'other' / name)
    moved = read_study(tmp_path / 'study.yml', tmp_path / 'other/root', tmp_path / 'other/work')
    assert {job.state() for job in moved.jobs} == {'done'}


def test_a_study_that_was_copied_goes_on_with_its_own_checkpoints(toy, tmp_path):
    """Also where the folder that it was copied from is still there, and has trained on."""
    run(toy())
    shutil.copytree(tmp_path / 'work', tmp_path / 'copy')
    (tmp_path / 'work/swin/nfn/seed0/detect/epoch_1.pth').write_text('other weights')
    copy = read_study(tmp_path / 'study.yml', tmp_path / 'root', tmp_path / 'copy')
    (copy.jobs[1].folder / 'metrics.json').unlink()
    # the test alone: the toy training, unlike a real one that has ended, writes last_checkpoint anew
    assert run_job(copy.jobs[1]._replace(commands=copy.jobs[1].commands[1:])).status == 'done'
    assert log()[-1] == f'test {copy.jobs[1].folder}/epoch_1.pth'


def test_gpus_are_asked_for_by_what_is_to_be_run(toy, monkeypatch):
    """What needs two is done; and a study that lacks them is refused before anything is removed."""
    swin = STUDY['backbones']['swin']
    rows = dict(swin['pretrain'], nfn=dict(swin['pretrain']['nfn'], processes=2))
    study = toy(seeds=[0], backbones=dict(swin=dict(swin, pretrain=rows)))
    for job in study.jobs:
        run_job(job._replace(commands=()))
        for path in job.outputs:
            path.write_text('')
        job.record()._replace(status='done', fingerprint=job.fingerprint).write(job.folder)
    monkeypatch.setattr(launch.torch.cuda, 'device_count', lambda: 1)
    (study.jobs[1].folder / 'metrics.json').unlink()
    (study.jobs[0].folder / 'last_checkpoint').write_text('')
    assert set(run(study)) == {'swin/nfn/seed0/detect'}
    study.jobs[0].record()._replace(fingerprint='other').write(study.jobs[0].folder)
    with pytest.raises(ValueError, match='--jobs 1: jobs of 2 processes need 2 GPUs, but there are 1'):
        run(study, redo=True)
    assert study.jobs[0].folder.exists()


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
    ids = slurm.submit(study, study.jobs, cluster='debug')
    assert [name for name, _ in ids] == [job.name for job in study.jobs]
    assert all(job.state() == 'done' for job in study.jobs)
    (study.jobs[0].folder / 'epoch_1.pth').write_text('other')
    with pytest.raises(RuntimeError, match='swin/nfn/seed0/pretrain: exit code 1'):
        slurm.RunOrRaise()(study.jobs[0]._replace(commands=(study.jobs[0].commands[1],)))


@needs_submitit
def test_a_job_whose_time_is_over_goes_on(toy, monkeypatch, tmp_path):
    """Before the time limit Slurm sends a signal, at which submitit asks the job what to put into the queue again."""
    submitit = pytest.importorskip('submitit')
    from submitit.core import job_environment, utils

    given, queued = [], []

    class Executor:
        def __init__(self, folder, cluster, slurm_max_num_timeout):
            given.append(slurm_max_num_timeout)

        def update_parameters(self, **parameters):
            pass

        def submit(self, *call):
            given.extend(call)
            return type('Submitted', (), dict(job_id='101'))

    class Environment:
        global_rank = 0
        _requeue = queued.append

    monkeypatch.setattr(submitit, 'AutoExecutor', Executor)
    study = toy(seeds=[0])
    slurm.submit(study, study.jobs[:1])
    limit, *call = given
    delayed, paths = utils.DelayedSubmission(*call), utils.JobPaths(tmp_path, '101')
    delayed.set_timeout(1, limit)  # minutes: so few that any time is past them
    with pytest.raises(SystemExit):
        job_environment.SignalHandler(Environment(), paths, delayed).checkpoint_and_try_requeue(signal.SIGUSR2)
    assert queued == [limit - 1] and limit > 10
    assert utils.DelayedSubmission.load(paths.submitted_pickle).result() == 'done' == study.jobs[0].state()


@needs_submitit
def test_slurm_jobs_wait_for_what_they_need(toy, monkeypatch, tmp_path):
    submitit = pytest.importorskip('submitit')
    asked = []

    class Executor:
        def __init__(self, folder, cluster, slurm_max_num_timeout):
            assert cluster == 'slurm' and slurm_max_num_timeout > 10

        def update_parameters(self, **parameters):
            asked.append(parameters)

        def submit(self, function, job):
            return type('Submitted', (), dict(job_id=f'{100 + len(asked)}'))

    monkeypatch.setattr(submitit, 'AutoExecutor', Executor)
    study = toy(seeds=[0], slurm=dict(slurm_partition='gpu', slurm_additional_parameters=dict(qos='low')))
    slurm.submit(study, study.jobs)
    assert [p['slurm_partition'] for p in asked] == ['gpu'] * 4 and asked[0]['name'] == 'swin_nfn_seed0_pretrain'
    assert [p['slurm_additional_parameters'].get('dependency') for p in asked] == [
        None,
        'afterok:101',
        'afterok:101',
        None,
    ]
    assert asked[1]['slurm_additional_parameters']['qos'] == 'low'
    # else it would wait for ever for what has failed
    assert [p['slurm_additional_parameters'].get('kill_on_invalid_dep') for p in asked] == [None, 'yes', 'yes', None]

    # again, while Slurm still has the pretraining and what needs it: only the last job was lost
    (tmp_path / 'squeue').write_text('#!/bin/sh\nfor n in 101 102 103; do echo $n R; done\n')
    (tmp_path / 'squeue').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert slurm.submit(study, study.jobs) == [('swin/given/seed0/encode', '105')] and len(asked) == 5
    assert json.loads((study.work_dir / 'slurm/jobs.json').read_text())['swin/nfn/seed0/pretrain'][0] == '101'

    # the pretraining has failed, and an older Slurm or one with other defaults keeps what waited for it
    for name, script in (
        ('squeue', 'for n in 102 103; do echo $n PD; done; echo 105 R'),
        ('scancel', f'echo $1 >> {tmp_path}/gone'),
    ):
        (tmp_path / name).write_text(f'#!/bin/sh\n{script}\n')
        (tmp_path / name).chmod(0o755)
    assert [name for name, _ in slurm.submit(study, study.jobs)] == [job.name for job in study.jobs[:3]]
    assert (tmp_path / 'gone').read_text().split() == ['102', '103']
    assert [p['slurm_additional_parameters'].get('dependency') for p in asked[5:]] == [None, *['afterok:106'] * 2]

    # a job that runs is left alone, also where its training would now be another one
    for name, script in (
        ('squeue', 'for n in 107 108; do echo $n R; done'),
        ('scancel', f'echo $1 >> {tmp_path}/gone'),
    ):
        (tmp_path / name).write_text(f'#!/bin/sh\n{script}\n')
    slurm.submit(study, study.jobs)
    assert (tmp_path / 'gone').read_text().split() == ['102', '103']

    # with other settings they would end as what they were submitted as, and be taken for what is asked for now
    other = toy(seeds=[0], backbones=dict(swin=dict(STUDY['backbones']['swin'], pretrain=dict(nfn=OTHER))))
    with pytest.raises(ValueError, match='Slurm still has 2 of the jobs with other settings, .*: scancel 107 108'):
        slurm.submit(other, other.jobs, redo=True)
    # and what it has is not run here as well
    with pytest.raises(ValueError, match='Slurm still has 2 of the jobs, e.g. swin/nfn/seed0/detect'):
        run(study)
    assert not log()


@needs_submitit
@pytest.mark.skipif(shutil.which('srun') is not None, reason='there is Slurm here')
@pytest.mark.parametrize('slurm_entry', [dict(timeout_min=5), dict(timeout=3)])
def test_what_slurm_does_not_take_is_said(toy, slurm_entry):
    pytest.importorskip('submitit')
    study = toy(slurm=slurm_entry)
    with pytest.raises(ValueError, match='--launcher slurm: swin/nfn/seed0/pretrain could not be submitted: '):
        slurm.submit(study, study.jobs)
