"""One step of a study: commands, what they need, and what became of them."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import time
from math import isfinite
from pathlib import Path
from threading import Event
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from mmengine.config import Config

from mmnfn.engine.checkpoint import last_checkpoint
from mmnfn.engine.launch import child_environment
from mmnfn.engine.provenance import source_revision
from mmnfn.utils import atomic_write

from .processes import Interrupted, end_marked, run_marked

RECORD = 'job.json'
LOG = 'job.log'
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
        processes: Number of processes that it starts.
        config: Its config; everything that it says belongs to the fingerprint.
        settings: :func:`config_text` of it.
        upstream: Fingerprints of the jobs that it needs.
        places: Folders that may be moved, the study's and the repository: their paths in commands do not count.
    """

    name: str
    folder: Path
    commands: Tuple[Tuple[str, ...], ...]
    needs: Tuple[str, ...]
    outputs: Tuple[Path, ...]
    labels: Dict[str, str]
    processes: int = 1
    config: Optional[Path] = None
    settings: str = ''
    upstream: Tuple[str, ...] = ()
    places: Tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes when commands or settings do, its own or those of a job that it needs."""
        commands = [['python' if part == sys.executable else part for part in command] for command in self.commands]
        for number, place in enumerate(self.places):
            commands = [[part.replace(place, f'<{number}>') for part in command] for command in commands]
        content = json.dumps([commands, self.settings, self.upstream])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def record(self) -> Optional[Record]:
        """What is known of it, or None if it never started.

        Raises:
            ValueError: The record is damaged.
        """
        path = self.folder / RECORD
        if not path.is_file():
            return None
        try:
            return Record.of(json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise ValueError(f'{path} is no record of a job ({error}). Remove it, and the job runs again.') from error

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
        started, seconds: When it started last (UTC), and how long it took, starts that were killed not counted.
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

    @classmethod
    def of(cls, content: Any) -> Record:
        """The record that a file holds; ValueError or TypeError if it holds something else."""
        record = cls(**content)
        texts = (record.name, record.fingerprint, record.status, record.started, record.host, record.message)
        numbers = type(record.seconds) in (int, float) and isfinite(record.seconds) and record.seconds >= 0
        if not numbers or not all(isinstance(text, str) for text in texts) or not isinstance(record.labels, dict):
            raise ValueError('it has entries of other types')
        if record.status not in ('running', 'done', 'failed') or not isinstance(record.commands, list):
            raise ValueError(f'its status is {record.status!r}')
        return record

    def write(self, folder: Path) -> None:
        """Replace the record in a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / RECORD) as temporary:
            Path(temporary).write_text(json.dumps(self._asdict(), indent=1), encoding='utf-8')


def run_job(job: Job, environment: Optional[Mapping[str, str]] = None, stop: Optional[Event] = None) -> Record:
    """Run a job's commands; its record and log are in its folder.

    Trainings are started with ``--resume``, so a job that was killed goes on where it was. What a killed runner left
    running on this machine is ended first.

    Args:
        job: The job.
        environment: Variables of its commands besides this process's own.
        stop: When it is set no command is started, and the end of one is that of the job, which stays
            ``'interrupted'``.

    Returns:
        The record, ``'done'`` or ``'failed'``.

    Raises:
        Interrupted: ``stop`` was set.
    """
    end_marked(job.folder)
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
    message = _run_all(job, child_environment(environment), stop or Event())
    record = record._replace(
        status='failed' if message else 'done', seconds=spent + time.monotonic() - start, message=message
    )
    record.write(job.folder)
    return record


def _run_all(job: Job, environment: Mapping[str, str], stop: Event) -> str:
    """Run the commands; why one failed, or ''."""
    if job.config is not None and config_text(job.config) != job.settings:
        return f'{job.config} was changed after the study was read; start it again.'
    with open(job.folder / LOG, 'a', encoding='utf-8') as log:
        for command in job.commands:
            try:
                arguments = [_filled_in(argument) for argument in command]
            except FileNotFoundError as error:
                return str(error)
            log.write(f'$ {" ".join(arguments)}\n')
            log.flush()
            code = run_marked(job.folder, arguments, log, environment, stop)
            if stop.is_set():
                raise Interrupted(job.name)
            if code:
                return f'exit code {code} of: {" ".join(arguments)}; see {log.name}'
    missing = [str(path) for path in job.outputs if not path.is_file()]
    return f'the commands ended well, but {missing[0]} is not there' if missing else ''


def config_text(path: Path) -> str:
    """Everything that a config says with what it inherits, in an order that does not depend on how it was written."""
    content: Any = Config.fromfile(path, import_custom_modules=False).to_dict()
    return json.dumps(content, sort_keys=True, default=str)


def _filled_in(argument: str) -> str:
    match = LAST_CHECKPOINT.match(argument)
    if match is None:
        return argument
    checkpoint = last_checkpoint(match[1])
    if not checkpoint:
        raise FileNotFoundError(
            f'{match[1]}/last_checkpoint is not there, or empty: the training before has left no checkpoint'
        )
    return checkpoint


def python(script: Path, *arguments: object) -> Tuple[str, ...]:
    """Command line of a script of ``tools/``."""
    return (sys.executable, str(script), *map(str, arguments))
