"""What a study found: figures by row, task and seed, their means, and differences between rows."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from scipy import stats

from mmnfn.evaluation.retrieval import Ranks

from .outcome import Outcome, read_outcome
from .study import Study


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
        kept: Name of a job → what it left, of jobs whose folders may be elsewhere or gone.

    Attributes:
        outcomes: Name of each finished job → what it left.
        stale: Number of jobs that were done with other settings, which count as not done.
        lacking: (Task, figure) that was asked for → a finished job without it, and figures that it has instead.
    """

    def __init__(self, study: Study, kept: Optional[Mapping[str, Outcome]] = None):
        self.study = study
        self.outcomes: Dict[str, Outcome] = {}
        self.stale = 0
        self.lacking: Dict[Tuple[str, str], str] = {}
        self._by_label: Dict[Tuple[str, str, str], Dict[int, Outcome]] = {}
        for job in study.jobs:
            state = job.state()
            outcome = read_outcome(job) if state == 'done' else (kept or {}).get(job.name)
            if outcome is None or outcome.fingerprint != job.fingerprint:
                self.stale += state == 'stale' or outcome is not None
                continue
            self.outcomes[job.name] = outcome
            key = (job.labels['backbone'], job.labels['row'], job.labels['task'])
            self._by_label.setdefault(key, {})[int(job.labels['seed'])] = outcome

    def metrics(self, backbone: str, row: str, task: str) -> Dict[int, Dict[str, Any]]:
        """``metrics.json`` of the finished jobs, by seed; random weights are not tested by a pretraining."""
        return {seed: outcome.metrics for seed, outcome in self._by_label.get((backbone, row, task), {}).items()}

    def figures(self, backbone: str, row: str, task: str, metric: str) -> Dict[int, float]:
        """A figure by seed, of the jobs that are done and have it.

        Args:
            backbone, row, task: Labels of the jobs.
            metric: Name of the figure in their ``metrics.json``.

        Raises:
            ValueError: It is no number.
        """
        found = {}
        for seed, metrics in self.metrics(backbone, row, task).items():
            if metrics and metric not in metrics:
                found_instead = ', '.join(sorted(metrics)[:8])
                self.lacking[task, metric] = f'{backbone}/{row}/seed{seed}/{task}, which has {found_instead}'
            elif metrics:
                value = metrics[metric]
                if type(value) not in (int, float, type(None)):
                    raise ValueError(f'{backbone}/{row}/seed{seed}/{task}/metrics.json: {metric} is {value!r:.100}.')
                nothing_to_find = value == -1 and '_mAP' in metric  # as pycocotools says it
                found[seed] = float('nan') if value is None or nothing_to_find else float(value)
        return found

    def curve(self, backbone: str, row: str, name: str) -> Dict[int, Dict[int, float]]:
        """What a pretraining logged: seed → step → value, of one of :data:`~mmnfn.experiments.outcome.CURVES`."""
        outcomes = self._by_label.get((backbone, row, 'pretrain'), {})
        return {seed: outcome.curves[name] for seed, outcome in outcomes.items() if name in outcome.curves}

    def ranks(self, backbone: str, row: str) -> Dict[int, Ranks]:
        """Of the test images of a pretraining: rank of each one's partner (brain or text), by seed."""
        outcomes = self._by_label.get((backbone, row, 'pretrain'), {})
        return {seed: outcome.ranks for seed, outcome in outcomes.items() if outcome.ranks is not None}


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
