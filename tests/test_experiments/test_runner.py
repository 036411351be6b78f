"""Studies run in order, skip what is done, and go on after a kill: here, by hand and through Slurm."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from toy_study import CONTENT

from mmnfn.experiments import read_study, runner

SWIN = CONTENT['backbones']['swin']
NFN = ['swin/nfn/seed0/pretrain', 'swin/nfn/seed0/detect', 'swin/nfn/seed0/encode']
needs_submitit = pytest.mark.skipif(sys.version_info < (3, 10), reason='submitit fails on Python 3.9')


def test_a_run_does_everything_once(toy):
    study = toy.read()
    assert set(toy.run(study).values()) == {'done'}
    lines = toy.log()
    assert sum(line.startswith('train') for line in lines) == 4 and sum(line.startswith('test') for line in lines) == 8
    assert lines[0] == 'train nfn seed0 pretrain data.shuffle=0 randomness.seed=0'
    record = study.jobs[0].record()
    assert record['status'] == 'done' and record['labels']['row'] == 'nfn' and len(record['seconds']) == 2
    assert '$ ' in (study.jobs[0].folder / 'job.log').read_text()
    assert toy.run(study) == {} and toy.log() == lines
    (study.jobs[1].folder / 'metrics.json').unlink()
    assert toy.run(study) == {NFN[1]: 'done'}


def test_jobs_beside_each_other_divide_the_machine(toy, monkeypatch):
    monkeypatch.setattr(runner.torch.cuda, 'device_count', lambda: 3)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5,6')
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    with open(toy.root / 'tools/test.py', 'a') as file:
        file.write("print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])\n")
        file.write('import time; time.sleep(1)')
    study = toy.read()
    assert set(toy.run(study, workers=2).values()) == {'done'}
    texts = [(job.folder / 'job.log').read_text() for job in study.jobs]
    shares = {line for text in texts for line in text.splitlines() if line[:1].isdigit()}
    assert shares == {'4,6 3', '5 3'}, 'one after another, all would have the same share'
    for seed in ('seed0', 'seed5'):
        order = [line.split()[3] for line in toy.log() if line.startswith(f'train nfn {seed}')]
        assert order == ['pretrain', 'detect'], 'none before what it needs'
    with pytest.raises(ValueError, match='--jobs 2: jobs of 2 processes need 4 GPUs, but there are 3'):
        runner.gpu_shares(2, 2)
    monkeypatch.setattr(runner.torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(runner, 'available_cores', lambda: 8)
    assert runner.gpu_shares(2) == [{}, {}] and runner.thread_share(2, 1) == {}, "the user's own number of threads"
    monkeypatch.delenv('OMP_NUM_THREADS')
    assert runner.thread_share(2, 2) == dict(OMP_NUM_THREADS='2') and runner.thread_share(1, 2) == {}


def test_a_failure_blocks_what_needs_it_and_nothing_else(toy):
    rows = dict(fail=dict(config='configs/pretrain.py'), **SWIN['pretrain'])
    study = toy.read(seeds=[0], backbones=dict(swin=dict(SWIN, pretrain=rows)))
    states = toy.run(study)
    assert states['swin/fail/seed0/pretrain'] == 'failed' and states['swin/fail/seed0/detect'] == 'blocked'
    assert {state for name, state in states.items() if 'fail' not in name} == {'done'}
    assert study.jobs[0].record()['message'].startswith('exit code 1: train.py: error: the reason; see ')


def test_the_error_of_a_tool_is_found_among_the_lines_of_torchrun(tmp_path):
    log = tmp_path / 'job.log'
    log.write_text('$ a\na.py: error: of an earlier start\n$ train\nb\ntrain.py: error: why\nTraceback\nRoot Cause\n')
    assert runner._last_words(log) == 'train.py: error: why'
    log.write_text('$ a\nb\nMemoryError: c\n\n')
    assert runner._last_words(log) == 'MemoryError: c'


def test_other_settings_are_not_taken_for_done(toy):
    toy.run(toy.read())
    toy.write_config('pretrain', 'lr = 2')
    study = toy.read()
    stale = [job.name for job in study.jobs if job.state() == 'stale']
    assert stale == [job.name for job in study.jobs if '/nfn/' in job.name], 'what needs it has changed, too'
    with pytest.raises(ValueError, match=f'6 jobs were done with other settings, e.g. {NFN[0]}'):
        toy.run(study)
    (study.jobs[0].folder / 'of_before').touch()
    assert set(toy.run(study, redo=True)) == set(stale)
    assert not (study.jobs[0].folder / 'of_before').exists()


def test_a_config_that_changes_under_way_is_noticed(toy):
    study = toy.read(seeds=[0])
    toy.write_config('detect', 'lr = 2')
    states = toy.run(study)
    assert [name for name, state in states.items() if state == 'failed'] == [NFN[1]]
    assert 'detect.py was changed after the study was read' in study.jobs[1].record()['message']
    toy.write_config('detect', "# the same in other words\nname = str('detect')")
    assert set(toy.run(study).values()) == {'done'}


def test_a_study_may_be_moved_or_copied(toy, tmp_path):
    """What is done is still done; a copy goes on with its own checkpoints, also where the original has trained on."""
    toy.run(toy.read())
    shutil.copytree(toy.work, tmp_path / 'copy')
    (toy.work / 'swin/nfn/seed0/detect/epoch_1.pth').write_text('other weights')
    copy = read_study(toy.path, toy.root, tmp_path / 'copy')
    assert {job.state() for job in copy.jobs} == {'done'}
    (copy.jobs[1].folder / 'metrics.json').unlink()
    # the test alone: the toy training, unlike a real one that has ended, writes last_checkpoint anew
    assert runner.run_job(copy.jobs[1]._replace(commands=copy.jobs[1].commands[1:]))['status'] == 'done'
    assert toy.log()[-1] == f'test {copy.jobs[1].folder}/epoch_1.pth'


@pytest.mark.parametrize('sent', [signal.SIGKILL, signal.SIGINT])
def test_a_runner_that_ends_takes_its_jobs_with_it_and_goes_on(toy, monkeypatch, sent):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    study = toy.read(seeds=[0])
    process = subprocess.Popen(toy.command(), env=dict(os.environ, TOY_SLEEP='1'), stderr=subprocess.DEVNULL)
    slept = study.jobs[0].folder / 'slept'
    while process.poll() is None and not (slept.exists() and slept.read_text()):
        time.sleep(0.1)
    with pytest.raises(BlockingIOError, match='is being run by another process'):
        toy.run(study, redo=True)
    training = psutil.Process(int(slept.read_text()))
    process.send_signal(sent)
    assert process.wait(60) != 0 and study.jobs[0].state() == 'interrupted'
    psutil.wait_procs([training], 10)
    assert not training.is_running() or training.status() == psutil.STATUS_ZOMBIE
    assert set(toy.run(study).values()) == {'done'} and len(toy.log()) > 5


def test_commands_can_be_typed(toy):
    study = toy.read(seeds=[0])
    script = '\n'.join(['set -e', *runner.command_lines(study.jobs)])
    for job in study.jobs:
        job.folder.mkdir(parents=True)
    subprocess.run(['bash', '-c', script], check=True)
    assert all(path.is_file() for job in study.jobs for path in job.outputs)


@pytest.fixture()
def slurm(toy, monkeypatch, tmp_path):
    """Parameters and calls of what is submitted, numbered from 101, and a function that sets what sacct says of it."""
    submitit = pytest.importorskip('submitit')
    submitted = []

    class Executor:
        def __init__(self, folder, cluster, slurm_max_num_timeout):
            assert cluster == 'slurm' and slurm_max_num_timeout > 10

        def update_parameters(self, **parameters):
            self.parameters = parameters

        def submit(self, *call):
            submitted.append((self.parameters, call))
            return type('Submitted', (), dict(job_id=f'{100 + len(submitted)}'))

    def sacct(*states):
        lines = '\n'.join(['JobID|State|NodeList', *(f'{n}|{state}|node' for n, state in states)])
        (tmp_path / 'sacct').write_text(f"#!/bin/sh\necho '{lines}'\n")
        (tmp_path / 'sacct').chmod(0o755)
        submitit.SlurmJob.watcher.clear()

    monkeypatch.setattr(submitit, 'AutoExecutor', Executor)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    return submitted, sacct


@needs_submitit
def test_slurm_jobs_wait_for_what_they_need(toy, slurm):
    submitted, sacct = slurm
    study = toy.read(seeds=[0], slurm=dict(slurm_partition='gpu', slurm_additional_parameters=dict(qos='low')))
    assert list(runner.submit(study, study.jobs).items())[0] == (NFN[0], '101')
    extra = [parameters['slurm_additional_parameters'] for parameters, _ in submitted]
    assert [parameters.get('dependency') for parameters in extra] == [None, 'afterok:101', 'afterok:101', None]
    # else it would wait for ever for what has failed
    assert extra[1] == dict(qos='low', dependency='afterok:101', kill_on_invalid_dep='yes')
    assert submitted[0][0]['name'] == 'swin_nfn_seed0_pretrain' and submitted[0][0]['slurm_partition'] == 'gpu'

    # again, while Slurm still has the pretraining and what needs it: only the last job was lost
    sacct((101, 'RUNNING'), (102, 'PENDING'), (103, 'REQUEUED'), (104, 'CANCELLED by 0'))
    assert runner.submit(study, study.jobs) == {'swin/given/seed0/encode': '105'}
    assert json.loads((study.work_dir / 'slurm/jobs.json').read_text())[NFN[0]][0] == '101'
    # with other settings they would end as what they were submitted as; and what Slurm has is not run here as well
    sacct((101, 'RUNNING'), (102, 'PENDING'), (103, 'FAILED'), (105, 'COMPLETED'))
    toy.write_config('pretrain', 'lr = 2')
    changed = toy.read(seeds=[0])
    with pytest.raises(ValueError, match='with other settings, 2 jobs, e.g. .*: scancel 101 102'):
        runner.submit(changed, changed.jobs, redo=True)
    with pytest.raises(ValueError, match=f'Slurm still has 2 jobs, e.g. {NFN[0]}'):
        toy.run(study)
    assert not toy.log()


@needs_submitit
def test_a_slurm_job_fails_with_its_commands_and_goes_on_after_its_time(toy, slurm, tmp_path):
    """Before the time limit Slurm sends a signal, at which submitit asks the job what to put into the queue again."""
    from submitit.core import job_environment, utils

    submitted, queued = slurm[0], []

    class Environment:
        global_rank = 0
        _requeue = queued.append

    study = toy.read(seeds=[0])
    runner.submit(study, study.jobs[:1])
    delayed, paths = utils.DelayedSubmission(*submitted[0][1]), utils.JobPaths(tmp_path, '101')
    delayed.set_timeout(1, 100)  # minutes: so few that any time is past them
    with pytest.raises(SystemExit):
        job_environment.SignalHandler(Environment(), paths, delayed).checkpoint_and_try_requeue(signal.SIGUSR2)
    assert queued == [99]
    utils.DelayedSubmission.load(paths.submitted_pickle).result()
    assert study.jobs[0].state() == 'done'
    with pytest.raises(RuntimeError, match=f'{NFN[0]}: exit code 1'):
        (study.jobs[0].folder / 'epoch_1.pth').write_text('other')
        runner.SlurmTask()(study.jobs[0]._replace(commands=study.jobs[0].commands[1:]))
