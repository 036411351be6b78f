"""Running a study's jobs: what is to be run, here or by hand; through Slurm see :mod:`.slurm`."""

from __future__ import annotations

import os
import shlex
import shutil
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from rich.console import Console

from mmnfn.engine.launch import available_cores

from .job import LAST_CHECKPOINT, Job, run_job
from .outcome import Outcome
from .processes import end_marked, locked
from .slurm_queue import read_queue, refuse_queued
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
        redo: Run jobs anew that were done with other settings; :func:`remove_stale` removes their folders.
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
    undone = {job.name for job in jobs if states[job.name] != 'done'}
    wanted = {job.name for job in jobs if job.name in undone and not is_kept(job, kept)}
    wanted |= undone.intersection(name for job in jobs if job.name in wanted for name in job.needs)
    return [job for job in jobs if job.name in wanted]


def remove_stale(jobs: Sequence[Job]) -> None:
    """Remove the folders of jobs that were done with other settings."""
    for job in jobs:
        if job.state() == 'stale':
            shutil.rmtree(job.folder)


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
        ValueError: Jobs were done with other settings, Slurm still has some, or there are GPUs, but fewer than are
            needed.
    """
    states: Dict[str, str] = {}
    running: Dict[Future, Tuple[Job, Share]] = {}
    stop = threading.Event()
    with locked(study.work_dir), ThreadPoolExecutor(workers) as pool:
        refuse_queued(jobs, read_queue(study.work_dir))
        waiting = pending(jobs, redo, kept)
        free = divided_machine(workers, max((job.processes for job in waiting), default=1))
        remove_stale(jobs)
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
    count = torch.cuda.device_count()
    if 0 < count < workers * processes:
        raise ValueError(
            f'--jobs {workers}: jobs of {processes} processes need {workers * processes} GPUs, but there are {count}.'
        )
    if workers == 1:
        return [Share(0, None)]
    visible = os.environ.get('CUDA_VISIBLE_DEVICES') or ','.join(map(str, range(count)))
    gpus = [name.strip() for name in visible.split(',')][:count]
    cores = max(1, available_cores() // workers)
    return [Share(cores, tuple(gpus[n::workers]) if count else None) for n in range(workers)]


def command_lines(jobs: Sequence[Job]) -> Iterator[str]:
    """Jobs as lines of a shell script, in order."""
    for job in jobs:
        yield f'# {job.name}'
        for command in job.commands:
            yield ' '.join(_shell(argument) for argument in command)


def _shell(argument: str) -> str:
    match = LAST_CHECKPOINT.match(argument)
    return f'"$(cat {shlex.quote(match[1] + "/last_checkpoint")})"' if match else shlex.quote(argument)
