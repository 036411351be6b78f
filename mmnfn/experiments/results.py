"""What a study found: figures by row, task and seed, their means, and differences between rows."""

from __future__ import annotations

import json
from typing import Dict, Mapping, NamedTuple, Optional

import numpy as np
from scipy import stats

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


def figures_of(study: Study, backbone: str, row: str, task: str, metric: str) -> Dict[int, float]:
    """A figure by seed, of the jobs that are done.

    Args:
        study: The study.
        backbone, row, task: Labels of the jobs.
        metric: Name of the figure in their ``metrics.json``.

    Raises:
        ValueError: A finished job has other figures only.
    """
    wanted = dict(backbone=backbone, row=row, task=task)
    found: Dict[int, float] = {}
    for job in study.jobs:
        labels = dict(job.labels)
        seed = int(labels.pop('seed'))
        if labels != wanted or job.state() != 'done':
            continue
        metrics = json.loads((job.folder / 'metrics.json').read_text())
        if metric not in metrics:
            raise ValueError(
                f'{job.folder / "metrics.json"} has no {metric!r}; it has {", ".join(sorted(metrics)[:8])}. Correct '
                f'the tables of {study.path}.'
            )
        found[seed] = float(metrics[metric])
    return found


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
