"""Processes of a job: started with its mark and found by it, whatever became of their parents."""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import IO, Iterator, List, Mapping, Sequence

import psutil

MARK = 'MMNFN_JOB'
"""Environment variable that holds the job's folder, which children inherit."""


class Interrupted(RuntimeError):
    """A job was stopped from outside."""


def run_marked(
    folder: Path, arguments: Sequence[str], log: IO[str], environment: Mapping[str, str], stop: Event
) -> int:
    """Run a command to its end, and end all that it started if this process is interrupted.

    Args:
        folder: Of the job.
        arguments: Command line.
        log: File of its output.
        environment: Its environment.
        stop: If it is set, nothing is started.

    Returns:
        The exit code.

    Raises:
        Interrupted: ``stop`` was set.
    """
    if stop.is_set():
        raise Interrupted(str(folder))
    process = subprocess.Popen(
        arguments,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is the runner's affair
        env={**environment, MARK: str(folder)},
    )
    try:
        return process.wait()
    except BaseException:
        end_marked(folder)
        process.wait()
        raise


def end_marked(folder: Path) -> None:
    """Kill the processes of a job on this machine, but for this process and those that it descends from."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    while True:
        found = [process for process in marked(folder) if process.pid not in own]
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(found, timeout=10)
        if not found or alive:  # what was started meanwhile is found by the next turn
            return


def marked(folder: Path) -> List[psutil.Process]:
    """Processes on this machine that carry a job's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended, or is not ours
    return found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a study's folder; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'w', encoding='utf-8') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f'the study in {folder} is being run by another process.') from error
        yield
