"""Studies go on after a kill, leave no training behind, and are run by one process at a time."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console
from toy_study import command, log, run

from mmnfn.experiments import launch
from mmnfn.experiments.job import run_job
from mmnfn.experiments.processes import Interrupted, end_marked, marked, run_marked


def test_a_running_study_keeps_its_folders(toy, tmp_path):
    """--redo beside a run must not remove what the run works on."""
    run(toy())
    (tmp_path / 'root/configs/detect.py').write_text("name = 'detect'\nlr = 2\n")
    study = toy()
    with launch.locked(study.work_dir), pytest.raises(BlockingIOError):
        run(study, redo=True)
    assert all(job.folder.is_dir() for job in study.jobs)


def test_a_killed_run_goes_on(toy, tmp_path):
    study = toy(seeds=[0])
    call = command(tmp_path, 'launch.run_locally(study, study.jobs, Console())')
    process = subprocess.Popen(call, env=dict(os.environ, TOY_SLEEP='1'), cwd=tmp_path)
    while process.poll() is None and not (study.jobs[0].folder / 'slept').exists():
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
    code = 'import subprocess, sys; subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], '
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
    # a shell starts what it runs in the background with Ctrl-C ignored, and the tests may run there
    code = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler); ' + call
    process = subprocess.Popen(command(tmp_path, code), cwd=tmp_path, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (study.jobs[0].folder / 'slept').exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) != 0
    assert study.jobs[0].state() == 'interrupted'
    left = subprocess.run(['pgrep', '-f', str(tmp_path / 'root/tools/train.py')], capture_output=True, text=True)
    assert left.stdout == ''
