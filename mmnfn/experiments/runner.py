"""Run the jobs of a study: on this machine, through Slurm, or as commands to be typed."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import IO, Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch
from rich.console import Console

from mmnfn.engine.checkpoint import last_checkpoint
from mmnfn.engine.launch import available_cores, child_environment
from mmnfn.engine.provenance import source_revision
from mmnfn.utils import atomic_write

from .study import LAST_CHECKPOINT, Job, Study, config_text, read_json

LOG = 'job.log'
SUBMITTED = 'slurm/jobs.json'
"""In a study's folder: name of each job that was handed to Slurm → its number there and its fingerprint."""
MAX_TIMEOUTS = 100
"""How often a job goes on after Slurm's time limit."""
_LIBC = ctypes.CDLL(None)

Kept = Mapping[str, Mapping[str, Any]]
"""Outcomes of jobs whose folders are elsewhere or gone (:func:`~mmnfn.experiments.report.read_results`)."""


def select(study: Study, text: str = '') -> List[Job]:
    """Select the jobs whose name contains a text, and those that they need; a ValueError if no name does."""
    wanted = {job.name for job in study.jobs if text in job.name}
    if not wanted:
        raise ValueError(f'--only: no job of {study.path} has {text!r} in its name; the first is {study.jobs[0].name}.')
    wanted |= {name for job in study.jobs if job.name in wanted for name in job.needs}
    return [job for job in study.jobs if job.name in wanted]


def job_states(jobs: Sequence[Job], kept: Kept) -> Dict[str, str]:
    """Look up the state of jobs by name: :meth:`Job.state`, or ``'kept'`` if its outcome is, with its settings."""
    states = {job.name: job.state() for job in jobs}
    for job in jobs:
        if states[job.name] not in ('done', 'stale') and kept.get(job.name, {}).get('fingerprint') == job.fingerprint:
            states[job.name] = 'kept'
    return states


def pending(jobs: Sequence[Job], redo: bool = False, kept: Optional[Kept] = None) -> List[Job]:
    """Select the jobs that are to be run; those that are kept are run only if another job needs their files.

    Raises:
        ValueError: There are jobs that were done with other settings, and ``redo`` is false.
    """
    states = job_states(jobs, kept or {})
    stale = [job for job in jobs if states[job.name] == 'stale']
    if stale and not redo:
        raise ValueError(
            f'{len(stale)} jobs were done with other settings, e.g. {stale[0].name} in {stale[0].folder}. --redo '
            'removes their folders and runs them anew; or give another --work-dir.'
        )
    wanted = [job for job in jobs if states[job.name] not in ('done', 'kept')]
    needed = {name for job in wanted for name in job.needs if states.get(name) == 'kept'}
    return [job for job in jobs if job in wanted or job.name in needed]


def run_job(job: Job, variables: Optional[Mapping[str, str]] = None, stop: Optional[Event] = None) -> Dict[str, Any]:
    """Run a job's commands; its record and log are in its folder, which is removed first if it had other settings.

    Trainings are started with ``--resume``, so a job that was killed goes on where it was.

    Args:
        job: The job.
        variables: Environment variables of its commands besides this process's own.
        stop: When it is set the running command is ended and no other begins; the job is then ``'interrupted'``.

    Returns:
        The record (:meth:`Job.record`), whose ``status`` is ``'running'`` if it was stopped.
    """
    if job.state() == 'stale':
        shutil.rmtree(job.folder)
    stop = stop or Event()
    seconds: List[float] = []
    record = dict(started=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()), seconds=seconds, host=platform.node())
    record.update(revision=source_revision(), status='running', message='')
    job.write_record(**record)
    if config_text(job.config) != job.settings:
        record['message'] = f'{job.config} was changed after the study was read; start it again.'
    with open(job.folder / LOG, 'a', encoding='utf-8') as log:
        for command in job.commands if not record['message'] else ():
            if stop.is_set():
                return record
            begin = time.monotonic()
            arguments = [_with_checkpoint(argument) for argument in command]
            log.write(f'$ {" ".join(arguments)}\n')
            log.flush()
            code = _run(arguments, log, child_environment(variables), stop)
            if stop.is_set():
                return record
            seconds.append(round(time.monotonic() - begin, 1))
            if code:
                record['message'] = f'exit code {code}: {_last_words(job.folder / LOG)}; see {log.name}'
                break
    missing = [str(path) for path in job.outputs if not path.is_file()]
    if missing and not record['message']:
        record['message'] = f'the commands ended well, but {missing[0]} is not there'
    record['status'] = 'failed' if record['message'] else 'done'
    job.write_record(**record)
    return record


def _with_checkpoint(argument: str) -> str:
    """Put in the checkpoint that a training before has left."""
    match = LAST_CHECKPOINT.match(argument)
    return argument if match is None else match[1] + (last_checkpoint(match[2]) or f'{match[2]}/last_checkpoint')


def _run(arguments: Sequence[str], log: IO[str], environment: Mapping[str, str], stop: Event) -> int:
    """Run a command in a process group of its own until it ends or ``stop`` is set; its exit code."""
    process = subprocess.Popen(
        arguments,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # Ctrl-C is the runner's affair
        preexec_fn=_end_with_parent if sys.platform == 'linux' else None,
    )
    while not stop.is_set():
        with suppress(subprocess.TimeoutExpired):
            return process.wait(0.2)
    os.killpg(process.pid, signal.SIGTERM)  # torchrun passes it on to its workers
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _end_with_parent() -> None:
    """Let Linux end this process when its parent dies, even by SIGKILL (PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, signal.SIGTERM)


def _last_words(log: Path) -> str:
    """Read the error of a tool from a log, which torchrun's own lines may follow; or the last line."""
    lines = log.read_text('utf-8', 'replace').rpartition('\n$ ')[2].rstrip().splitlines()
    return [*lines[-1:], *(line for line in lines if re.match(r'\w+\.(py|sh): error: ', line))][-1]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study's folder, or raise a BlockingIOError; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f'the study in {folder} is being run by another process.') from error
        yield


def run_locally(
    study: Study,
    jobs: Sequence[Job],
    console: Console,
    workers: int = 1,
    redo: bool = False,
    kept: Optional[Kept] = None,
) -> Dict[str, str]:
    """Run what is to be run of some jobs on this machine; those whose needs failed are left out.

    Args:
        study: The study.
        jobs: Selected jobs, in an order in which they can run.
        console: Where to report: a line when a job begins or ends, and one each minute.
        workers: How many jobs run at the same time, sharing cores and GPUs.
        redo, kept: See :func:`pending`.

    Returns:
        Name of each job that was to be run → ``'done'``, ``'failed'`` or ``'blocked'``.

    Raises:
        BlockingIOError: The same study is being run in the same folder by another process.
        ValueError: Jobs were done with other settings, Slurm still has some, or there are GPUs, but fewer than are
            needed.
    """
    states: Dict[str, str] = {}
    running: Dict[Future, Tuple[Job, Dict[str, str]]] = {}
    stop, begin, say = Event(), time.monotonic(), partial(console.print, highlight=False, markup=False)
    with locked(study.work_dir), ThreadPoolExecutor(workers) as pool:
        _refuse(jobs, in_slurm(study), 'Slurm still has')
        waiting = pending(jobs, redo, kept)
        free = gpu_shares(workers, max((job.processes for job in waiting), default=1))
        done = {job.name for job in study.jobs if job.state() == 'done'}
        titles = {job.name: f'[{number}/{len(waiting)}] {job.name}' for number, job in enumerate(waiting, 1)}
        try:
            while waiting or running:
                for job in list(waiting):
                    lacking = set(job.needs) - done
                    if lacking & set(states):
                        states[job.name] = 'blocked'
                        say(f'{titles[job.name]}: left out, because {min(lacking)} is not done')
                    elif free and not lacking:
                        say(f'{titles[job.name]} …')
                        share = free.pop(0)
                        variables = {**share, **thread_share(workers, job.processes)}
                        running[pool.submit(run_job, job, variables, stop)] = job, share
                    else:
                        continue
                    waiting.remove(job)
                ended = wait(running, timeout=60, return_when=FIRST_COMPLETED).done
                for future in ended:
                    job, share = running.pop(future)
                    free.append(share)
                    record = future.result()
                    states[job.name] = record['status']
                    done.update([job.name] if record['status'] == 'done' else [])
                    text = f'{titles[job.name]} {record["status"]} in {sum(record["seconds"]):.0f} s'
                    say(text + (f': {record["message"]}' if record['message'] else ''))
                if running and not ended:
                    names = ', '.join(job.name for job, _ in running.values())
                    say(f'… {(time.monotonic() - begin) / 60:.0f} min: {names}')
        except BaseException:
            stop.set()
            raise
    return states


def gpu_shares(workers: int, processes: int = 1) -> List[Dict[str, str]]:
    """Divide the GPUs among jobs that run at the same time; environment variables for each of them.

    Raises:
        ValueError: There are GPUs, but fewer than ``workers`` jobs of so many processes need.
    """
    count = torch.cuda.device_count()
    if 0 < count < workers * processes:
        raise ValueError(
            f'--jobs {workers}: jobs of {processes} processes need {workers * processes} GPUs, but there are {count}.'
        )
    names = (os.environ.get('CUDA_VISIBLE_DEVICES') or ','.join(map(str, range(count)))).split(',')[:count]
    return [dict(CUDA_VISIBLE_DEVICES=','.join(names[k::workers])) if names else {} for k in range(workers)]


def thread_share(workers: int, processes: int) -> Dict[str, str]:
    """Divide the cores among jobs that run at the same time, unless OMP_NUM_THREADS is set; variables of one job."""
    if workers == 1 or 'OMP_NUM_THREADS' in os.environ:
        return {}
    return dict(OMP_NUM_THREADS=str(max(1, available_cores() // workers // processes)))


def command_lines(jobs: Sequence[Job]) -> Iterator[str]:
    """Write jobs as lines of a shell script, in order."""
    for job in jobs:
        yield f'# {job.name}'
        for command in job.commands:
            pairs = [(argument, LAST_CHECKPOINT.match(argument)) for argument in command]
            yield ' '.join(
                f'{match[1]}"$(cat {shlex.quote(match[2] + "/last_checkpoint")})"' if match else shlex.quote(argument)
                for argument, match in pairs
            )


def in_slurm(study: Study) -> Dict[str, List[str]]:
    """Ask submitit which jobs Slurm still has; name → number there and fingerprint."""
    path = study.work_dir / SUBMITTED
    if not path.is_file():
        return {}
    submitit, queue = _submitit(), read_json(path)
    handles = {name: submitit.SlurmJob(path.parent / '%j', number) for name, (number, _) in queue.items()}
    return {name: entry for name, entry in queue.items() if not handles[name].done()}


def submit(study: Study, jobs: Sequence[Job], redo: bool = False, kept: Optional[Kept] = None) -> Dict[str, str]:
    """Hand jobs to Slurm by submitit, each after those that it needs; those that Slurm still has are left to it.

    The study's ``slurm`` entry has the parameters of submitit's ``update_parameters``, e.g. ``timeout_min``,
    ``slurm_partition``, ``gpus_per_node`` and ``cpus_per_task``. A job that reaches its time limit goes on in another
    turn, and what needs it waits.

    Args:
        study: The study.
        jobs: Selected jobs.
        redo, kept: See :func:`pending`.

    Returns:
        Names and numbers of the jobs that were submitted now.

    Raises:
        ImportError: submitit is not installed, or Python is older than 3.10.
        BlockingIOError: The same study is being run or submitted by another process.
        ValueError: Jobs were done with other settings, or Slurm has them with other settings, or it takes none.
    """
    submitit, submitted = _submitit(), {}
    with locked(study.work_dir):
        queue = in_slurm(study)
        changed = [job for job in jobs if job.name in queue and queue[job.name][1] != job.fingerprint]
        _refuse(changed, queue, 'Slurm has, with other settings,')
        for job in pending([job for job in jobs if job.name not in queue], redo, kept):
            parameters = dict(study.content.get('slurm') or {}, name=job.name.replace('/', '_'))
            waits = [queue[name][0] for name in job.needs if name in queue]
            if waits:
                extra = dict(dependency='afterok:' + ':'.join(waits), kill_on_invalid_dep='yes')
                given = parameters.get('slurm_additional_parameters') or {}
                parameters['slurm_additional_parameters'] = {**given, **extra}
            try:
                folder = (study.work_dir / SUBMITTED).parent / '%j'
                executor = submitit.AutoExecutor(folder=folder, cluster='slurm', slurm_max_num_timeout=MAX_TIMEOUTS)
                executor.update_parameters(**parameters)
                number = executor.submit(SlurmTask(), job).job_id
            except (RuntimeError, NameError, TypeError) as error:
                raise ValueError(
                    f'--launcher slurm: {job.name} could not be submitted: {" ".join(str(error).split())} It needs a '
                    f"machine that can submit to Slurm, and submitit's parameters in the entry slurm of {study.path}."
                ) from error
            submitted[job.name], queue[job.name] = number, [number, job.fingerprint]
            with atomic_write(study.work_dir / SUBMITTED) as temporary:
                temporary.write_text(json.dumps(queue, indent=1), 'utf-8')
    return submitted


def _submitit() -> Any:
    """Import submitit, which asks Python 3.9 for plugins in a way that fails where there are none."""
    try:
        import submitit
    except ImportError as error:
        raise ImportError(f'Slurm needs submitit ({error}). Install it: pip install submitit.') from error
    if sys.version_info < (3, 10):
        raise ImportError('--launcher slurm needs Python 3.10 or later; --launcher print gives the commands.')
    return submitit


def _refuse(jobs: Sequence[Job], queue: Mapping[str, Sequence[str]], reason: str) -> None:
    """Raise a ValueError if one of some jobs is in Slurm's queue."""
    found = [job.name for job in jobs if job.name in queue]
    if found:
        numbers = ' '.join(queue[name][0] for name in found)
        raise ValueError(f'{reason} {len(found)} jobs, e.g. {found[0]}. Let them end, or end them: scancel {numbers}')


class SlurmTask:
    """Call :func:`run_job`, and let the Slurm job fail with it, so that the jobs that need it do not start."""

    def __call__(self, job: Job) -> None:
        """Run a job."""
        record = run_job(job)
        if record['status'] != 'done':
            raise RuntimeError(f'{job.name}: {record["message"]}')

    def checkpoint(self, job: Job) -> Any:
        """Give submitit the same job for another turn when Slurm ends this one for its time limit or for others."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)
