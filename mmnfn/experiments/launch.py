"""Running a study's jobs: here, through Slurm, or by hand."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from rich.console import Console

from mmnfn.engine.launch import available_cores
from mmnfn.engine.whole_file import whole_file
from mmnfn.json_file import load_json

from .job import LAST_CHECKPOINT, Job, run_job
from .outcome import Outcome
from .processes import end_marked, locked
from .study import Study


def select(study: Study, pattern: str = '') -> List[Job]:
    """Jobs whose name contains a text, and those that they need, in the study's order.

    Raises:
        ValueError: No name does.
    """
    wanted = {job.name for job in study.jobs if pattern in job.name}
    if not wanted:
        raise ValueError(
            f'--only: no job of {study.path} has {pattern!r} in its name; the first is {study.jobs[0].name}.'
        )
    needed = {name for job in study.jobs if job.name in wanted for name in job.needs}
    return [job for job in study.jobs if job.name in wanted | needed]


def pending(jobs: Sequence[Job], redo: bool = False, kept: Optional[Mapping[str, Outcome]] = None) -> List[Job]:
    """Jobs that are to be run.

    Args:
        jobs: Selected jobs.
        redo: Remove the folders of jobs that were done with other settings, and run them anew.
        kept: What jobs left whose folders are elsewhere or gone. They are run only if another job needs their files.

    Raises:
        ValueError: There are such jobs, and ``redo`` is false.
    """
    states = {job.name: job.state() for job in jobs}
    stale = [job for job in jobs if states[job.name] == 'stale']
    if stale and not redo:
        raise ValueError(
            f'{len(stale)} jobs were done with other settings, e.g. {stale[0].name} in {stale[0].folder}. --redo '
            'removes their folders and runs them anew; or give another --work-dir.'
        )
    for job in stale:
        shutil.rmtree(job.folder)
    undone = {job.name for job in jobs if states[job.name] != 'done'}
    wanted = {job.name for job in jobs if job.name in undone and not is_kept(job, kept)}
    wanted |= undone.intersection(name for job in jobs if job.name in wanted for name in job.needs)
    return [job for job in jobs if job.name in wanted]


def is_kept(job: Job, kept: Optional[Mapping[str, Outcome]]) -> bool:
    """Whether the outcome of a job, done with its settings, is among those that are kept."""
    return kept is not None and job.name in kept and kept[job.name].fingerprint == job.fingerprint


def run_locally(
    study: Study,
    jobs: Sequence[Job],
    console: Console,
    workers: int = 1,
    redo: bool = False,
    kept: Optional[Mapping[str, Outcome]] = None,
) -> Dict[str, str]:
    """Run what is to be run of some jobs on this machine; those whose needs failed are left out.

    Args:
        study: The study.
        jobs: Selected jobs, in an order in which they can run.
        console: Where to report.
        workers: How many jobs run at the same time. Cores and GPUs are divided among them.
        redo, kept: See :func:`pending`.

    Returns:
        Name of each job that was to be run → ``'done'``, ``'failed'`` or ``'blocked'``.

    Raises:
        BlockingIOError: The same study is being run in the same folder by another process.
        ValueError: Jobs were done with other settings, or there are GPUs, but fewer than are needed.
    """
    free = divided_machine(workers, max((job.processes for job in jobs), default=1))
    states: Dict[str, str] = {}
    running: Dict[Future, Tuple[Job, Share]] = {}
    stop = threading.Event()
    with locked(study.work_dir), ThreadPoolExecutor(workers) as pool:
        waiting = pending(jobs, redo, kept)
        done = {job.name for job in study.jobs if job.state() == 'done'}
        numbers = {job.name: f'[{number}/{len(waiting)}] {job.name}' for number, job in enumerate(waiting, 1)}
        try:
            while waiting or running:
                for job in list(waiting):
                    lacking = set(job.needs) - done
                    if not lacking.isdisjoint(states) or not lacking.issubset(numbers):
                        states[job.name] = 'blocked'
                        console.print(f'{numbers[job.name]}: left out, because {min(lacking)} is not done')
                    elif free and not lacking:
                        console.print(f'{numbers[job.name]} …', highlight=False)
                        share = free.pop()
                        running[pool.submit(run_job, job, share.environment(job.processes), stop)] = job, share
                    else:
                        continue
                    waiting.remove(job)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, share = running.pop(future)
                    free.append(share)
                    record = future.result()
                    states[job.name] = record.status
                    done.update([job.name] if record.status == 'done' else [])
                    text = f'{record.status} in {record.seconds:.0f} s' + (record.message and f': {record.message}')
                    console.print(f'{numbers[job.name]} {text}', highlight=False)
        except BaseException:
            stop.set()
            while not all(future.done() for future in running):  # one may have been about to start a command
                for job, _ in running.values():
                    end_marked(job.folder)
                wait(running, timeout=0.2)
            raise
    return states


class Share(NamedTuple):
    """What one of several jobs that run at the same time has of the machine.

    Attributes:
        cores: Number of cores; 0 leaves threads as they are.
        gpus: Numbers or names of GPUs; None leaves them as they are.
    """

    cores: int
    gpus: Optional[Tuple[str, ...]]

    def environment(self, processes: int) -> Dict[str, str]:
        """Environment variables of a job with so many processes."""
        variables = {}
        if self.cores and 'OMP_NUM_THREADS' not in os.environ:
            variables['OMP_NUM_THREADS'] = str(max(1, self.cores // processes))
        if self.gpus is not None:
            variables['CUDA_VISIBLE_DEVICES'] = ','.join(self.gpus)
        return variables


def divided_machine(workers: int, processes: int = 1) -> List[Share]:
    """The machine, divided among several jobs that run at the same time.

    Args:
        workers: Number of jobs.
        processes: The most that one of them starts.

    Raises:
        ValueError: There are GPUs, but fewer than ``workers * processes``.
    """
    if workers == 1:
        return [Share(0, None)]
    count = torch.cuda.device_count()
    if 0 < count < workers * processes:
        raise ValueError(
            f'--jobs {workers}: jobs of {processes} processes need {workers * processes} GPUs, but there are {count}.'
        )
    visible = os.environ.get('CUDA_VISIBLE_DEVICES') or ','.join(map(str, range(count)))
    gpus = [name.strip() for name in visible.split(',')][:count]
    cores = max(1, available_cores() // workers)
    return [Share(cores, tuple(gpus[n::workers]) if count else None) for n in range(workers)]


def submit(
    study: Study,
    jobs: Sequence[Job],
    cluster: str = 'slurm',
    redo: bool = False,
    kept: Optional[Mapping[str, Outcome]] = None,
) -> List[Tuple[str, str]]:
    """Hand jobs to Slurm by submitit, each after those that it needs; those that Slurm still has are left to it, unless
    what they wait for has failed.

    The study's ``slurm`` entry has the parameters of submitit's ``update_parameters``, e.g. ``timeout_min``,
    ``slurm_partition``, ``gpus_per_node`` and ``cpus_per_task``. Numbers of submitted jobs are kept in
    ``slurm/jobs.json`` of the study's folder.

    Args:
        study: The study.
        jobs: Selected jobs.
        cluster: Of submitit's AutoExecutor.
        redo, kept: See :func:`pending`.

    Returns:
        Names and ids of the jobs that were submitted now.

    Raises:
        ImportError: submitit is not installed, or Python is older than 3.10.
        BlockingIOError: The same study is being run or submitted by another process.
        ValueError: Jobs were done with other settings.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(f'--launcher slurm needs submitit ({error}). Install it: pip install submitit.') from error
    if sys.version_info < (3, 10):  # submitit asks Python 3.9 for plugins in a way that fails where there are none
        raise ImportError('--launcher slurm needs Python 3.10 or later; --launcher print gives the commands.')
    submitted, by_name = [], {job.name: job for job in study.jobs}
    with locked(study.work_dir):
        file = study.work_dir / 'slurm/jobs.json'
        file.parent.mkdir(exist_ok=True)
        known = _submitted(file) if file.is_file() else {}
        alive = _in_slurm(known.values()) if cluster == 'slurm' else {}
        ids = {name: number for name, number in known.items() if number in alive}
        for job in jobs:
            # what it waits for has failed, and what is submitted below has another number
            lost = [by_name[name].state() for name in job.needs if name not in ids]
            if alive.get(ids.get(job.name)) == 'PD' and not {'failed', 'interrupted', 'new'}.isdisjoint(lost):
                subprocess.run(['scancel', ids.pop(job.name)], stderr=subprocess.DEVNULL)
        for job in pending([job for job in jobs if job.name not in ids], redo, kept):
            executor = submitit.AutoExecutor(folder=study.work_dir / 'slurm' / '%j', cluster=cluster)
            parameters = dict(study.content.get('slurm') or {}, name=job.name.replace('/', '_'))
            waits = [ids[name] for name in job.needs if name in ids]
            if waits and cluster == 'slurm':
                extra = dict(parameters.get('slurm_additional_parameters') or {})
                waits = dict(dependency='afterok:' + ':'.join(waits), kill_on_invalid_dep='yes')
                parameters['slurm_additional_parameters'] = {**extra, **waits}
            executor.update_parameters(**parameters)
            handle = executor.submit(run_or_raise, job)
            ids[job.name] = handle.job_id
            submitted.append((job.name, handle.job_id))
            with whole_file(file) as temporary:
                Path(temporary).write_text(json.dumps(ids, indent=1))
            if cluster == 'debug':
                handle.result()
    return submitted


def _submitted(file: Path) -> Dict[str, str]:
    """Job → number in Slurm, of what was submitted before."""
    try:
        known = load_json(file)
        if not isinstance(known, dict) or not all(isinstance(number, str) for number in known.values()):
            raise ValueError('it holds something else than numbers of jobs')
    except ValueError as error:
        raise ValueError(f'{file} is damaged ({error}). Look with squeue what still runs, then remove it.') from error
    return known


def _in_slurm(numbers: Iterable[str]) -> Dict[str, str]:
    """Those of some job numbers that Slurm still has → their state there, ``'PD'`` while they wait."""
    numbers = list(numbers)
    if not numbers:
        return {}
    command = ['squeue', '--noheader', '--format=%A %t', '--jobs', ','.join(numbers)]
    # squeue fails if the only number that it is asked for is unknown to it
    listed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return dict(line.split()[:2] for line in listed.splitlines() if len(line.split()) > 1)


def run_or_raise(job: Job) -> str:
    """:func:`run_job` whose failure is one of the Slurm job, so that what needs it does not start."""
    record = run_job(job)
    if record.status != 'done':
        raise RuntimeError(f'{job.name}: {record.message}')
    return record.status


def command_lines(jobs: Sequence[Job]) -> Iterator[str]:
    """Jobs as lines of a shell script, in order."""
    for job in jobs:
        yield f'# {job.name}'
        for command in job.commands:
            yield ' '.join(_shell(argument) for argument in command)


def _shell(argument: str) -> str:
    match = LAST_CHECKPOINT.match(argument)
    return f'"$(cat {shlex.quote(match[1] + "/last_checkpoint")})"' if match else shlex.quote(argument)
