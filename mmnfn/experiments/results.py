"""What a study found: figures by row, task and seed, their means, and differences between rows."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from scipy import stats

from mmnfn.evaluation.retrieval import Ranks, ranks_of_predictions

from .study import EMBEDDINGS, Study


class Summary(NamedTuple):
    """Mean of a figure over seeds.

    Attributes:
        mean: NaN without a value.
        deviation: Standard deviation over seeds (ddof 1); NaN with fewer than two.
        count: Number of seeds that have it.
        missing: Seeds of the study that do not have it.
    """

    mean: float
    deviation: float
    count: int
    missing: int


class Difference(NamedTuple):
    """Mean difference between two rows, paired by seed.

    Attributes:
        mean: NaN without a common seed.
        low, high: 95% interval by Student's t over seeds; NaN with fewer than two.
        count: Number of common seeds.
    """

    mean: float
    low: float
    high: float
    count: int


class StudyResults:
    """What the finished jobs of a study left, read once.

    Args:
        study: The study.

    Attributes:
        done: Backbone, row and task → seed → folder of a finished job.
        count: Number of finished jobs.
        stale: Number of jobs that were done with other settings, which count as not done.
    """

    def __init__(self, study: Study):
        self.study = study
        self.done: Dict[Tuple[str, str, str], Dict[int, Path]] = {}
        self.stale = 0
        for job in study.jobs:
            state = job.state()
            self.stale += state == 'stale'
            if state == 'done':
                key = (job.labels['backbone'], job.labels['row'], job.labels['task'])
                self.done.setdefault(key, {})[int(job.labels['seed'])] = job.folder
        self.count = sum(map(len, self.done.values()))
        self._metrics: Dict[Path, Dict[str, Any]] = {}

    def metrics(self, backbone: str, row: str, task: str) -> Dict[int, Dict[str, Any]]:
        """``metrics.json`` of the finished jobs, by seed; random weights are not tested by a pretraining."""
        found = {}
        for seed, folder in self.done.get((backbone, row, task), {}).items():
            path = folder / 'metrics.json'
            if path not in self._metrics:
                self._metrics[path] = _read_json(path) if path.is_file() else {}
            found[seed] = self._metrics[path]
        return found

    def figures(self, backbone: str, row: str, task: str, metric: str) -> Dict[int, float]:
        """A figure by seed, of the jobs that are done.

        Args:
            backbone, row, task: Labels of the jobs.
            metric: Name of the figure in their ``metrics.json``.

        Raises:
            ValueError: A finished job has other figures only.
        """
        found = {}
        for seed, metrics in self.metrics(backbone, row, task).items():
            if metrics and metric not in metrics:
                raise ValueError(
                    f'metrics.json of {backbone}/{row}/seed{seed}/{task} has no {metric!r}; it has '
                    f'{", ".join(sorted(metrics)[:8])}. Correct the tables of {self.study.path}.'
                )
            if metrics:
                value = metrics[metric]
                found[seed] = float('nan') if value is None else float(value)
        return found

    def curve(self, backbone: str, row: str, name: str) -> Dict[int, Dict[int, float]]:
        """What a pretraining logged: seed → step (iteration, or epoch for figures of its validation) → value.

        Where a training went on after a kill, its later word counts.
        """
        found: Dict[int, Dict[int, float]] = {}
        for seed, folder in self.done.get((backbone, row, 'pretrain'), {}).items():
            for path in sorted(folder.glob('*/vis_data/scalars.json')):
                for line in path.read_text().splitlines():
                    try:
                        entry = json.loads(line)
                    except ValueError:
                        continue  # the last line of a training that was killed
                    if name in entry:
                        found.setdefault(seed, {})[int(entry['step'])] = float(entry[name])
        return found

    def ranks(self, backbone: str, row: str) -> Dict[int, Ranks]:
        """Of the test images of a pretraining: rank of each one's partner (brain or text), by seed."""
        found = {}
        for seed, folder in self.done.get((backbone, row, 'pretrain'), {}).items():
            if (folder / EMBEDDINGS).is_file():
                try:
                    with open(folder / EMBEDDINGS, 'rb') as file:
                        found[seed] = ranks_of_predictions(pickle.load(file))
                except (pickle.UnpicklingError, EOFError, LookupError, TypeError, StopIteration) as error:
                    raise ValueError(_damaged(folder / EMBEDDINGS, error)) from error
        return found


def _read_json(path: Path) -> Dict[str, Any]:
    """A mapping from a JSON file."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(_damaged(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(_damaged(path, f'it holds {type(content).__name__}'))
    return content


def _damaged(path: Path, error: object) -> str:
    return f'{path} is damaged ({error}). Remove it, and run the study again: the job that wrote it is then not done.'


def summarise(figures: Mapping[int, float], seeds: int) -> Summary:
    """Mean and standard deviation of a figure over seeds; ``seeds`` is how many there should be."""
    values = np.asarray([value for value in figures.values() if np.isfinite(value)])
    return Summary(
        float(values.mean()) if len(values) else float('nan'),
        float(values.std(ddof=1)) if len(values) > 1 else float('nan'),
        len(values),
        seeds - len(values),
    )


def paired_difference(figures: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """Mean of ``figures − reference`` over the seeds that both have.

    The interval is about other seeds: trainings like these on the same data. It says nothing of other people or other
    pictures.
    """
    common = sorted(set(figures) & set(reference))
    values = np.asarray([figures[seed] - reference[seed] for seed in common])
    values = values[np.isfinite(values)]
    if not len(values):
        return Difference(float('nan'), float('nan'), float('nan'), 0)
    mean = float(values.mean())
    if len(values) < 2:
        return Difference(mean, float('nan'), float('nan'), len(values))
    reach = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Difference(mean, mean - reach, mean + reach, len(values))


def formatted(summary: Summary, scale: float = 1.0, digits: int = 1) -> str:
    """``43.7 ± 0.3``; with a note where seeds are missing, and ``missing`` where all are."""
    if not summary.count:
        return 'missing'
    text = f'{scale * summary.mean:.{digits}f}'
    if summary.count > 1:
        text += f' ± {scale * summary.deviation:.{digits}f}'
    return text + (f' ({summary.count} of {summary.count + summary.missing} seeds)' if summary.missing else '')


def formatted_difference(difference: Optional[Difference], scale: float = 1.0, digits: int = 1) -> str:
    """``+2.3 [+1.1, +3.5]``; without an interval for a single seed, and ``missing`` without any."""
    if difference is None or not difference.count:
        return 'missing'
    text = f'{scale * difference.mean:+.{digits}f}'
    if difference.count > 1:
        text += f' [{scale * difference.low:+.{digits}f}, {scale * difference.high:+.{digits}f}]'
    return text
