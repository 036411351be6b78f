"""What a finished job left for a report, and a file that keeps it without the job's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np

from mmnfn.evaluation.dump import read_predictions
from mmnfn.evaluation.retrieval import Ranks, ranks_of_predictions
from mmnfn.utils import atomic_write

from .job import Job
from .study import EMBEDDINGS

RESULTS = 'results.json'
CURVES = ('loss_con', 'retrieval/image_to_brain_top1', 'retrieval/image_to_text_top1')
"""What reports draw of a training's log."""
_FORMAT = 'mmnfn study results, 1'


class Outcome(NamedTuple):
    """What is left of a finished job.

    Attributes:
        fingerprint: Of the job that was run.
        revision: Git revision of the code that ran it.
        metrics: ``metrics.json``; empty for random weights, which are not tested by a pretraining.
        curves: Name of :data:`CURVES` → step (iteration, or epoch for figures of its validation) → value. Where a
            training went on after a kill, its later word counts.
        ranks: Of a pretraining's test images: rank of each one's partner (brain or text).
    """

    fingerprint: str
    revision: Optional[str]
    metrics: Dict[str, Any]
    curves: Dict[str, Dict[int, float]]
    ranks: Optional[Ranks]


def read_outcome(job: Job) -> Outcome:
    """What a job left in its folder.

    Raises:
        ValueError: A file of it is damaged.
    """
    record = job.record()
    metrics, curves, ranks = job.folder / 'metrics.json', {}, None
    if job.labels['task'] == 'pretrain':
        curves = _curves(job.folder)
        if (job.folder / EMBEDDINGS).is_file():
            ranks = _ranks(job.folder / EMBEDDINGS)
    return Outcome(
        job.fingerprint, record and record.revision, _read_json(metrics) if metrics.is_file() else {}, curves, ranks
    )


def read_results(path: Union[str, Path]) -> Dict[str, Outcome]:
    """Name of a job → what it left, from a file of :func:`write_results`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'--results: there is no file {str(path)!r}.')
    try:
        content = json.loads(path.read_bytes())
        if content.get('format') != _FORMAT:
            raise ValueError(f'its format is {content.get("format")!r}, not {_FORMAT!r}')
        return {name: _outcome(**node) for name, node in content['jobs'].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f'--results: {path} holds no results of a study ({error}). Take a results.json of report.py.'
        ) from error


def write_results(path: Union[str, Path], outcomes: Mapping[str, Outcome]) -> None:
    """Write what jobs left, a line for each job."""
    lines = []
    for name, outcome in sorted(outcomes.items()):
        node = outcome._asdict()
        node['ranks'] = outcome.ranks and [np.asarray(values).tolist() for values in outcome.ranks]
        lines.append(f'{json.dumps(name)}: {json.dumps(node)}')
    text = ',\n'.join(lines)
    with atomic_write(path) as temporary:
        Path(temporary).write_text(f'{{"format": {json.dumps(_FORMAT)}, "jobs": {{\n{text}\n}}}}\n', encoding='utf-8')


def _outcome(
    fingerprint: str, revision: Optional[str], metrics: Mapping, curves: Mapping, ranks: Optional[list]
) -> Outcome:
    """From its form in a file."""
    steps = {name: {int(step): float(value) for step, value in curve.items()} for name, curve in curves.items()}
    return Outcome(
        str(fingerprint),
        revision,
        dict(metrics),
        steps,
        None if ranks is None else Ranks(*(np.asarray(values, np.int64) for values in ranks)),
    )


def _curves(folder: Path) -> Dict[str, Dict[int, float]]:
    """What a training logged. Which of two starts is the later one is told by their steps: the folders are named by the
    clock, which may have been set back.
    """
    starts: Dict[str, List[List[Tuple[int, float]]]] = {name: [] for name in CURVES}
    for path in folder.glob('*/vis_data/scalars.json'):
        entries: Dict[str, List[Tuple[int, float]]] = {}
        for line in path.read_text('utf-8', 'replace').splitlines():
            try:
                entry = json.loads(line)
                found = {name: (int(entry['step']), float(entry[name])) for name in CURVES if name in entry}
            except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
                continue  # the last line of a training that was killed
            for name, pair in found.items():
                entries.setdefault(name, []).append(pair)
        for name, values in entries.items():
            starts[name].append(values)
    in_order = {name: sorted(runs, key=lambda run: (run[0][0], run[-1][0])) for name, runs in starts.items()}
    return {name: dict(pair for run in runs for pair in run) for name, runs in in_order.items() if runs}


def _ranks(path: Path) -> Ranks:
    """Ranks of embeddings that a test dumped."""
    try:
        return ranks_of_predictions(read_predictions(path))
    except Exception as error:  # embeddings that do not fit together raise many kinds
        raise ValueError(_damaged(path, error)) from error


def _read_json(path: Path) -> Dict[str, Any]:
    """A mapping from a JSON file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(_damaged(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(_damaged(path, f'it holds {type(content).__name__}'))
    return content


def _damaged(path: Path, error: object) -> str:
    return f'{path} is damaged ({error}). Remove it, and run the study again: the job that wrote it is then not done.'
