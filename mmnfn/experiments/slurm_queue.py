"""What of a study Slurm has been given, and still has."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Dict, Iterable, Mapping, NamedTuple, Sequence

from mmnfn.utils import atomic_write

from .job import Job


class Queued(NamedTuple):
    """A job in Slurm.

    Attributes:
        number: Its number there.
        fingerprint: Of the job as it was submitted.
        state: As squeue says, ``'PD'`` while it waits; ``''`` if it was not asked.
    """

    number: str
    fingerprint: str
    state: str = ''


def queue_file(work_dir: Path) -> Path:
    """Where the numbers of a study's submitted jobs are kept."""
    return work_dir / 'slurm/jobs.json'


def read_queue(work_dir: Path) -> Dict[str, Queued]:
    """Job → what Slurm still has of it, of the jobs that were submitted before.

    Raises:
        ValueError: The file of the numbers is damaged.
    """
    file = queue_file(work_dir)
    if not file.is_file():
        return {}
    try:
        known = json.loads(file.read_bytes())
        entries = known.values() if isinstance(known, dict) else [None]
        if not all(isinstance(e, list) and len(e) == 2 and all(isinstance(text, str) for text in e) for e in entries):
            raise ValueError('it holds something else than numbers and fingerprints of jobs')
    except ValueError as error:
        raise ValueError(f'{file} is damaged ({error}). Look with squeue what still runs, then remove it.') from error
    states = _states(number for number, _ in known.values())
    return {name: Queued(*entry, states[entry[0]]) for name, entry in known.items() if entry[0] in states}


def write_queue(work_dir: Path, jobs: Mapping[str, Queued]) -> None:
    """Keep number and fingerprint of jobs."""
    with atomic_write(queue_file(work_dir)) as temporary:
        content = {name: [entry.number, entry.fingerprint] for name, entry in jobs.items()}
        Path(temporary).write_text(json.dumps(content, indent=1), encoding='utf-8')


def refuse_queued(jobs: Sequence[Job], queue: Mapping[str, Queued], stale_only: bool = False) -> None:
    """Raise a ValueError if Slurm still has one of some jobs, or has it with other settings."""
    kept = [job for job in jobs if job.name in queue]
    found = [job for job in kept if not stale_only or queue[job.name].fingerprint != job.fingerprint]
    if found:
        raise ValueError(
            f'Slurm still has {len(found)} of the jobs{" with other settings" if stale_only else ""}, e.g. '
            f'{found[0].name}. Let them end, or end them: scancel {" ".join(queue[job.name].number for job in found)}'
        )


def _states(numbers: Iterable[str]) -> Dict[str, str]:
    """Those of some job numbers that Slurm still has → their state; none where there is no Slurm."""
    numbers = list(numbers)
    if not numbers or shutil.which('squeue') is None:
        return {}
    command = ['squeue', '--noheader', '--format=%A %t', '--jobs', ','.join(numbers)]
    # squeue fails if the only number that it is asked for is unknown to it
    listed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return dict(line.split()[:2] for line in listed.splitlines() if len(line.split()) > 1)
