"""Running a study's jobs: here, through Slurm, or by hand."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

import torch
from rich.console import Console

from mmnfn.engine.launch import available_cores

from .job import LAST_CHECKPOINT, Job, end_processes, run_job
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


def pending(jobs: Sequence[Job], redo: bool = False) -> List[Job]:
    """Jobs that are to be run.

    Args:
        jobs: Selected jobs.
        redo: Remove the folders of jobs that were done with other settings, and run them anew.

    Raises:
        ValueError: There are such jobs, and ``redo`` is false.
    """
    stale = [job for job in jobs if job.state() == 'stale']
    if stale and not redo:
        raise ValueError(
            f'{len(stale)} jobs were done with other settings, e.g. {stale[0].name} in {stale[0].folder}. --redo '
            'removes their folders and runs them anew; or give another --work-dir.'
        )
    for job in stale:
        shutil.rmtree(job.folder)
    return [job for job in jobs if job.state() != 'done']


def run_locally(study: Study, jobs: Sequence[Job], console: Console, workers: int = 1) -> Dict[str, str]:
    """Run jobs on this machine; those whose needs failed are left out.

    Args:
        study: The study.
        jobs: What is to be run, in an order in which they can run.
        console: Where to report.
        workers: How many jobs run at the same time. Cores and GPUs are divided among them.

    Returns:
        Name of each job → ``'done'``, ``'failed'`` or ``'blocked'``.

    Raises:
        BlockingIOError: The same study is being run in the same folder by another process.
        ValueError: There are GPUs, but fewer than ``workers``.
    """
    states: Dict[str, str] = {}
    done = {job.name for job in study.jobs if job.state() == 'done'}
    numbers = {job.name: f'[{number}/{len(jobs)}] {job.name}' for number, job in enumerate(jobs, 1)}
    waiting, free = list(jobs), divided_machine(workers)
    running: Dict[Future, Tuple[Job, Dict[str, str]]] = {}
    stop = threading.Event()
    with _lock(study.work_dir), ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or running:
                for job in list(waiting):
                    lacking = set(job.needs) - done
                    if not lacking.isdisjoint(states) or not lacking.issubset(numbers):
                        states[job.name] = 'blocked'
                        console.print(f'{numbers[job.name]}: left out, because {job.needs[0]} is not done')
                    elif free and not lacking:
                        console.print(f'{numbers[job.name]} …', highlight=False)
                        environment = free.pop()
                        running[pool.submit(run_job, job, environment, stop)] = job, environment
                    else:
                        continue
                    waiting.remove(job)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, environment = running.pop(future)
                    free.append(environment)
                    record = future.result()
                    states[job.name] = record.status
                    done.update([job.name] if record.status == 'done' else [])
                    text = f'{record.status} in {record.seconds:.0f} s' + (record.message and f': {record.message}')
                    console.print(f'{numbers[job.name]} {text}', highlight=False)
        except BaseException:
            stop.set()
            for job, _ in running.values():
                end_processes(job)
            raise
    return states


def divided_machine(workers: int) -> List[Dict[str, str]]:
    """Environment variables of each of several jobs that run at the same time.

    Raises:
        ValueError: There are GPUs, but fewer than ``workers``.
    """
    if workers == 1:
        return [{}]
    gpus = os.environ.get('CUDA_VISIBLE_DEVICES', ','.join(map(str, range(torch.cuda.device_count()))))
    numbers = [number for number in gpus.split(',') if number]
    if 0 < len(numbers) < workers:
        raise ValueError(f'--jobs {workers}: there are only {len(numbers)} GPUs ({gpus}); give at most as many jobs.')
    threads = os.environ.get('OMP_NUM_THREADS', str(max(1, available_cores() // workers)))
    shares: List[Dict[str, str]] = [dict(OMP_NUM_THREADS=threads) for _ in range(workers)]
    if numbers:
        for number, share in enumerate(shares):
            share['CUDA_VISIBLE_DEVICES'] = ','.join(numbers[number::workers])
    return shares


def submit(study: Study, jobs: Sequence[Job], cluster: str = 'slurm') -> List[Tuple[str, str]]:
    """Hand jobs to Slurm by submitit, each after those that it needs.

    The study's ``slurm`` entry has the parameters of submitit's ``update_parameters``, e.g. ``timeout_min``,
    ``slurm_partition``, ``gpus_per_node`` and ``cpus_per_task``.

    Args:
        study: The study.
        jobs: What is to be run.
        cluster: Of submitit's AutoExecutor.

    Returns:
        Names and ids of the submitted jobs.

    Raises:
        ImportError: submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(f'--launcher slurm needs submitit ({error}). Install it: pip install submitit.') from error
    ids: Dict[str, str] = {}
    for job in jobs:
        executor = submitit.AutoExecutor(folder=study.work_dir / 'slurm' / '%j', cluster=cluster)
        parameters = dict(study.content.get('slurm') or {}, name=job.name.replace('/', '_'))
        waits = [ids[name] for name in job.needs if name in ids]
        if waits and cluster == 'slurm':
            extra = dict(parameters.get('slurm_additional_parameters') or {})
            parameters['slurm_additional_parameters'] = dict(extra, dependency='afterok:' + ':'.join(waits))
        executor.update_parameters(**parameters)
        submitted = executor.submit(run_or_raise, job)
        ids[job.name] = submitted.job_id
        if cluster == 'debug':
            submitted.result()
    return list(ids.items())


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


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a study's folder; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f'the study in {folder} is being run by another process.') from error
        yield
