"""One step of a study: commands, what they need, and what became of them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

from mmnfn.engine.launch import child_environment
from mmnfn.engine.provenance import source_revision
from mmnfn.engine.whole_file import whole_file

RECORD = 'job.json'
LOG = 'job.log'
PROCESS = 'job.pid'
LAST_CHECKPOINT = re.compile(r'^\{last_checkpoint:(.+)\}$')


class Job(NamedTuple):
    """A step of a study.

    Attributes:
        name: Unique in the study, e.g. ``'swin-micro/nfn/seed0/detect'``.
        folder: Where it works and keeps its record and its log.
        commands: Run one after another; an argument ``{last_checkpoint:FOLDER}`` is replaced by the checkpoint that
            ``FOLDER/last_checkpoint`` names when the command starts.
        needs: Names of jobs that must be done before.
        outputs: Files that are there when it is done.
        labels: What it is of: ``backbone``, ``row``, ``seed``, ``task``.
        settings: Text of everything that its result depends on besides the commands, e.g. of its config.
        places: Folders that may be moved, the study's and the repository: their paths in commands do not count.
    """

    name: str
    folder: Path
    commands: Tuple[Tuple[str, ...], ...]
    needs: Tuple[str, ...]
    outputs: Tuple[Path, ...]
    labels: Dict[str, str]
    settings: str = ''
    places: Tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes when commands or settings do."""
        commands = [['python' if part == sys.executable else part for part in command] for command in self.commands]
        for number, place in enumerate(self.places):
            commands = [[part.replace(place, f'<{number}>') for part in command] for command in commands]
        content = json.dumps([commands, self.settings])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def record(self) -> Optional[Record]:
        """What is known of it, or None if it never started."""
        path = self.folder / RECORD
        return Record(**json.loads(path.read_text())) if path.is_file() else None

    def state(self) -> str:
        """``'new'``, ``'done'``, ``'failed'``, ``'interrupted'``, or ``'stale'`` if it was done with other settings."""
        record = self.record()
        if record is None:
            return 'new'
        if record.fingerprint != self.fingerprint:
            return 'stale'
        if record.status == 'done' and not all(path.is_file() for path in self.outputs):
            return 'interrupted'
        return 'interrupted' if record.status == 'running' else record.status


class Record(NamedTuple):
    """What is kept of a job.

    Attributes:
        name, labels, fingerprint, commands: Of the job.
        status: ``'running'``, ``'done'`` or ``'failed'``.
        started, seconds: When it started last (UTC), and how long it took, all its starts together.
        host, revision: Machine, and git revision of the code.
        message: Why it failed.
    """

    name: str
    labels: Dict[str, str]
    fingerprint: str
    commands: List[List[str]]
    status: str
    started: str
    seconds: float
    host: str
    revision: Optional[str]
    message: str = ''

    def write(self, folder: Path) -> None:
        """Replace the record in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / RECORD) as temporary:
            Path(temporary).write_text(json.dumps(self._asdict(), indent=1))


class Interrupted(RuntimeError):
    """A job was stopped from outside."""


def run_job(job: Job, environment: Optional[Mapping[str, str]] = None, stop: Optional[Event] = None) -> Record:
    """Run a job's commands; its record and log are in its folder.

    Trainings are started with ``--resume``, so a job that was killed goes on where it was.

    Args:
        job: The job.
        environment: Variables of its commands besides this process's own.
        stop: When it is set, the end of a command is that of the job, which stays ``'interrupted'``.

    Returns:
        The record, ``'done'`` or ``'failed'``.

    Raises:
        Interrupted: ``stop`` was set.
    """
    end_processes(job)
    before = job.record()
    spent = before.seconds if before is not None and before.fingerprint == job.fingerprint else 0.0
    record = Record(
        job.name,
        job.labels,
        job.fingerprint,
        [list(command) for command in job.commands],
        'running',
        time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        spent,
        platform.node(),
        source_revision(),
    )
    record.write(job.folder)
    start = time.monotonic()
    message = ''
    with open(job.folder / LOG, 'a', encoding='utf-8') as log:
        for command in job.commands:
            message = _run(command, log, job.folder / PROCESS, child_environment(environment))
            if stop is not None and stop.is_set():
                raise Interrupted(job.name)
            if message:
                break
    missing = [str(path) for path in job.outputs if not path.is_file()]
    if not message and missing:
        message = f'the commands ended well, but {missing[0]} is not there'
    record = record._replace(
        status='failed' if message else 'done', seconds=spent + time.monotonic() - start, message=message
    )
    record.write(job.folder)
    return record


def _run(command: Tuple[str, ...], log, process_file: Path, environment: Mapping[str, str]) -> str:
    """Run one command, whose process id is in a file meanwhile; returns why it failed, or ''."""
    try:
        arguments = [_filled_in(argument) for argument in command]
    except FileNotFoundError as error:
        return str(error)
    log.write(f'$ {" ".join(arguments)}\n')
    log.flush()
    # a session of its own, so that a launcher's children end with it
    process = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment)
    process_file.write_text(str(process.pid))
    try:
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    finally:
        process_file.unlink(missing_ok=True)
    if code == 0:
        return ''
    return f'exit code {code} of: {" ".join(arguments)}; see {log.name}'


def end_processes(job: Job) -> None:
    """End the processes of a job, e.g. those that a killed runner left behind, which else would run beside new ones.

    The number of the processes' session is in a file while they run. It is believed only if a process of that number
    works in the job's folder by its command line.
    """
    process_file = job.folder / PROCESS
    try:
        number = int(process_file.read_text() or 0)
        command = Path(f'/proc/{number}/cmdline').read_bytes().decode(errors='replace')
        if str(job.folder) in command:
            os.killpg(number, signal.SIGKILL)
    except OSError:
        pass
    process_file.unlink(missing_ok=True)


def _filled_in(argument: str) -> str:
    match = LAST_CHECKPOINT.match(argument)
    if match is None:
        return argument
    pointer = Path(match[1]) / 'last_checkpoint'
    if not pointer.is_file():
        raise FileNotFoundError(f'{pointer} is not there: the training before has left no checkpoint')
    return pointer.read_text().strip()


def python(script: Path, *arguments: object) -> Tuple[str, ...]:
    """Command line of a script of ``tools/``."""
    return (sys.executable, str(script), *map(str, arguments))
