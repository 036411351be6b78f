"""Running a study's jobs through Slurm."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .job import Job, run_job
from .launch import pending, remove_stale
from .outcome import Outcome
from .processes import locked
from .slurm_queue import Queued, queue_file, read_queue, refuse_queued, write_queue
from .study import Study

MAX_TIMEOUTS = 100
"""How often a job goes on after Slurm's time limit."""


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
    ``slurm_partition``, ``gpus_per_node`` and ``cpus_per_task``. A job that reaches its time limit goes on in another
    turn, and what needs it waits. Numbers of submitted jobs are kept in
    ``slurm/jobs.json`` of the study's folder.

    Args:
        study: The study.
        jobs: Selected jobs.
        cluster: Of submitit's AutoExecutor.
        redo, kept: See :func:`~mmnfn.experiments.launch.pending`.

    Returns:
        Names and ids of the jobs that were submitted now.

    Raises:
        ImportError: submitit is not installed, or Python is older than 3.10.
        BlockingIOError: The same study is being run or submitted by another process.
        ValueError: Jobs were done with other settings, or Slurm has them with other settings, or it takes none.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(f'--launcher slurm needs submitit ({error}). Install it: pip install submitit.') from error
    if sys.version_info < (3, 10):  # submitit asks Python 3.9 for plugins in a way that fails where there are none
        raise ImportError('--launcher slurm needs Python 3.10 or later; --launcher print gives the commands.')
    submitted, by_name = [], {job.name: job for job in study.jobs}
    with locked(study.work_dir):
        queue_file(study.work_dir).parent.mkdir(exist_ok=True)
        queue = read_queue(study.work_dir) if cluster == 'slurm' else {}
        refuse_queued(jobs, queue, stale_only=True)
        for job in jobs:
            # what it waits for has failed, and what is submitted below has another number
            lost = [by_name[name].state() for name in job.needs if name not in queue]
            waits = job.name in queue and queue[job.name].state == 'PD'
            if waits and not {'failed', 'interrupted', 'new'}.isdisjoint(lost):
                subprocess.run(['scancel', queue.pop(job.name).number], stderr=subprocess.DEVNULL)
        ours = [job for job in jobs if job.name not in queue]
        to_submit = pending(ours, redo, kept)
        remove_stale(ours)
        for job in to_submit:
            try:
                folder = study.work_dir / 'slurm' / '%j'
                executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=MAX_TIMEOUTS)
                executor.update_parameters(**_parameters(study, job, queue if cluster == 'slurm' else {}))
                handle = executor.submit(RunOrRaise(), job)
            except (RuntimeError, NameError, TypeError) as error:
                raise ValueError(
                    f'--launcher slurm: {job.name} could not be submitted: {error}. It needs a machine that can submit '
                    f"to Slurm, and parameters of submitit in the entry 'slurm' of {study.path}."
                ) from error
            queue[job.name] = Queued(handle.job_id, job.fingerprint)
            submitted.append((job.name, handle.job_id))
            write_queue(study.work_dir, queue)
            if cluster == 'debug':
                handle.result()
    return submitted


def _parameters(study: Study, job: Job, queue: Mapping[str, Queued]) -> Dict[str, object]:
    """What submitit is to be told of a job, with its wait for those that it needs."""
    parameters = dict(study.content.get('slurm') or {}, name=job.name.replace('/', '_'))
    waits = [queue[name].number for name in job.needs if name in queue]
    if waits:
        extra = dict(parameters.get('slurm_additional_parameters') or {})
        waits = dict(dependency='afterok:' + ':'.join(waits), kill_on_invalid_dep='yes')
        parameters['slurm_additional_parameters'] = {**extra, **waits}
    return parameters


class RunOrRaise:
    """:func:`run_job` whose failure is one of the Slurm job, so that what needs it does not start."""

    def __call__(self, job: Job) -> str:
        """Run a job."""
        record = run_job(job)
        if record.status != 'done':
            raise RuntimeError(f'{job.name}: {record.message}')
        return record.status

    def checkpoint(self, job: Job) -> Any:
        """Say what submitit is to put into the queue again, under the same number, when Slurm is about to end the job,
        for its time is over or others go first: the same, for trainings go on where they were.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)
