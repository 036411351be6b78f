"""What a study found: metrics by row and seed, tables with differences between rows, figures, and the report."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

import numpy as np
import pandas as pd
from jinja2 import Environment
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import brentq
from scipy.stats import nct, t, ttest_rel

from mmnfn.evaluation.dump import read_predictions
from mmnfn.evaluation.retrieval import Ranks, ranks_of_predictions, recall_curve
from mmnfn.utils import atomic_write
from mmnfn.version import __version__

from .study import EMBEDDINGS, Job, Study, read_json

RESULTS = 'results.json'
CURVES = ('loss_con', 'retrieval/image_to_brain_top1', 'retrieval/image_to_text_top1')
"""What reports draw of a training's log."""
_FORMAT = 'mmnfn study results, 1'
DIFFERENCES = (
    "Paired differences by seed, with 95% intervals (Student's t over seeds). In parentheses, the smallest effect that "
    'the study could have found: the one that a two-sided paired t-test at 5% finds in 80% of such studies, with as '
    'many seeds and the observed std of the differences. An asterisk says that the difference holds after Holm: p is '
    'below 0.05 when corrected for the number of differences in the column.'
)

Outcomes = Mapping[str, Dict[str, Any]]
"""Name of a job → its outcome (:func:`read_outcome`)."""


def read_outcome(job: Job) -> Dict[str, Any]:
    """Read what a finished job left, in the form of ``results.json``.

    Returns:
        ``fingerprint`` and ``revision`` of the job; ``metrics``, empty for random weights; and of a pretraining
        ``curves``, name of :data:`CURVES` → step (iteration, or epoch of a validation) as a text → value, and
        ``ranks``, lists of :class:`~mmnfn.evaluation.retrieval.Ranks` over its test images.

    Raises:
        ValueError: A file is damaged.
    """
    metrics, embeddings = job.folder / 'metrics.json', job.folder / EMBEDDINGS
    pretrained = job.labels['task'] == 'pretrain'
    predictions = read_predictions(embeddings) if pretrained and embeddings.is_file() else [{}]
    ranks = ranks_of_predictions(predictions) if 'image_embedding' in predictions[0] else None
    return dict(
        fingerprint=job.fingerprint,
        revision=(job.record() or {}).get('revision'),
        metrics=read_json(metrics) if metrics.is_file() else {},
        curves=_read_curves(job.folder) if pretrained else {},
        ranks=None if ranks is None else [values.tolist() for values in ranks],
    )


def _read_curves(folder: Path) -> Dict[str, Dict[str, float]]:
    """Read what a training logged; where it went on after a kill, its later word counts."""
    starts: List[List[dict]] = []
    for path in folder.glob('*/vis_data/scalars.json'):
        entries = []
        for line in path.read_text('utf-8', 'replace').splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue  # the last line of a training that was killed
        starts += [entries] if entries else []
    curves: Dict[str, Dict[str, float]] = {}
    for entries in sorted(starts, key=lambda entries: (entries[0]['step'], len(entries))):
        for entry in entries:
            for name in CURVES:
                if name in entry:
                    curves.setdefault(name, {})[str(entry['step'])] = entry[name]
    return curves


def read_results(path: Union[str, Path]) -> Outcomes:
    """Read a ``results.json``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'--results: there is no file {str(path)!r}.')
    content = read_json(path)
    if not isinstance(content, dict) or content.get('format') != _FORMAT:
        raise ValueError(f'--results: {path} holds no results of a study. Take a results.json of report.py.')
    return content['jobs']


class StudyResults:
    """Read what the finished jobs of a study left, once.

    Args:
        study: The study.
        kept: Outcomes of jobs whose folders may be elsewhere or gone.

    Attributes:
        outcomes: Those of the finished jobs.
        stale: Number of jobs that were done with other settings, which count as not done.
        lacking: Metric that a table asks for → a finished job without it.
    """

    def __init__(self, study: Study, kept: Outcomes):
        self.study = study
        self.outcomes: Dict[str, Dict[str, Any]] = {}
        self.stale = 0
        self.lacking: Dict[str, str] = {}
        for job in study.jobs:
            state = job.state()
            outcome = read_outcome(job) if state == 'done' else kept.get(job.name)
            if outcome is not None and outcome['fingerprint'] == job.fingerprint:
                self.outcomes[job.name] = outcome
            else:
                self.stale += state == 'stale' or outcome is not None

    def get(self, backbone: str, row: str, task: str, kind: str) -> Dict[int, Any]:
        """Look up one kind of outcome (``'metrics'``, ``'curves'``, ``'ranks'``) by seed, where there is something."""
        names = {seed: f'{backbone}/{row}/seed{seed}/{task}' for seed in self.study.seeds}
        found = {seed: self.outcomes.get(name, {}).get(kind) for seed, name in names.items()}
        return {seed: value for seed, value in found.items() if value}

    def metric(self, backbone: str, row: str, task: str, metric: str) -> pd.Series:
        """Look up a metric by seed, of the jobs that are done and have it; NaN where there was nothing to find."""
        values: Dict[int, float] = {}
        for seed, metrics in self.get(backbone, row, task, 'metrics').items():
            if metric not in metrics:
                self.lacking[metric] = f'{backbone}/{row}/seed{seed}/{task}'
                continue
            value = metrics[metric]
            nothing_to_find = value is None or (value == -1 and '_mAP' in metric)  # as pycocotools says it
            values[seed] = float('nan') if nothing_to_find else float(value)
        return pd.Series(values, dtype=float)


class Table(NamedTuple):
    """Hold a table of a report.

    Attributes:
        title: Its heading.
        caption: What its metrics are: of how many seeds, and how many subjects a training step had.
        means: Texts, mean ± std over seeds of every row, the paper's beside them where there are any.
        differences: Texts of the differences between rows, paired by seed, see :func:`difference_text`.
        values: Every single value, not scaled.
    """

    title: str
    caption: str
    means: pd.DataFrame
    differences: pd.DataFrame
    values: pd.DataFrame


def make_table(results: StudyResults, layout: Mapping[str, Any]) -> Table:
    """Make a table of a study as an entry of ``tables`` in its file asks for it."""
    backbones, seeds = results.study.content['backbones'], len(results.study.seeds)
    columns, references = layout['columns'], layout.get('references', [])
    rows = layout.get('rows') or list(dict.fromkeys(row for node in backbones.values() for row in node['pretrain']))
    paper = layout.get('paper', {})
    in_paper = {name for by_row in paper.values() for known in by_row.values() for name in known}
    means, differences, values = [], {}, []
    for backbone, node in backbones.items():
        found = {
            row: {name: results.metric(backbone, row, c['task'], c['metric']) for name, c in columns.items()}
            for row in rows
            if row in node['pretrain']
        }
        for row, by_column in found.items():
            texts = dict(backbone=backbone, weights=row)
            for name, column in columns.items():
                texts[name] = mean_text(by_column[name], seeds, column.get('scale', 1), column.get('digits', 1))
                if name in in_paper:
                    texts[f'{name}, paper'] = str(paper.get(backbone, {}).get(row, {}).get(name, ''))
                for seed, value in by_column[name].items():
                    values.append((backbone, row, seed, name, column['metric'], value))
            means.append(texts)
            others = [] if row in references[:1] else [other for other in references if other in found and other != row]
            for other in others:
                differences[backbone, f'{row} − {other}'] = {
                    name: paired_difference(by_column[name], found[other][name]) for name in columns
                }
    apart = pd.DataFrame(differences.keys(), columns=['backbone', 'difference'])
    for name, column in columns.items() if differences else ():
        of_column = [by_column[name] for by_column in differences.values()]
        holds = holm([difference.p for difference in of_column]) < 0.05
        scale, digits = column.get('scale', 1), column.get('digits', 1)
        apart[name] = [difference_text(one, scale, digits, star) for one, star in zip(of_column, holds)]
    caption = _caption(results.study, rows) + (" The paper's numbers are from its own data." if in_paper else '')
    names = ['backbone', 'weights', 'seed', 'column', 'metric', 'value']
    return Table(layout['title'], caption, pd.DataFrame(means), apart, pd.DataFrame(values, columns=names))


def mean_text(values: pd.Series, seeds: int, scale: float = 1, digits: int = 1) -> str:
    """Write ``43.7 ± 0.3``, mean and std over seeds; with a note where seeds are missing; ``missing`` where all are."""
    count = values.count()
    if not count:
        return 'missing'
    text = f'{scale * values.mean():.{digits}f}' + (f' ± {scale * values.std():.{digits}f}' if count > 1 else '')
    return text + (f' ({count} of {seeds} seeds)' if count < seeds else '')


class Difference(NamedTuple):
    """Hold the difference between two rows, paired by seed.

    Attributes:
        mean: Over seeds; NaN without a common seed, and all else is NaN for a single one.
        low: Lower end of the 95% interval by Student's t.
        high: Upper end.
        p: Of the two-sided paired t-test.
        detectable: The difference that this test at 5% finds in 80% of studies with as many seeds and the same std of
            the differences.
    """

    mean: float
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    detectable: float = np.nan


def paired_difference(values: pd.Series, reference: pd.Series) -> Difference:
    """Compare two rows by the seeds that both have.

    The interval is about other seeds: trainings like these on the same data. It says nothing of other people or other
    images.
    """
    both = pd.DataFrame(dict(a=values, b=reference)).dropna()
    differences = both.a - both.b
    mean, error = float(differences.mean()), float(differences.sem())
    if len(both) < 2:
        return Difference(mean)
    if error == 0:
        return Difference(mean, mean, mean, float(mean == 0), 0.0)
    test = ttest_rel(both.a, both.b)
    return Difference(mean, *test.confidence_interval(), test.pvalue, error * _detectable(len(both)))


def _detectable(count: int, power: float = 0.8) -> float:
    """Compute the smallest effect of a two-sided paired t-test at 5%, in standard errors of ``count`` differences."""
    freedom = count - 1
    threshold = t.ppf(0.975, freedom)

    def lacking(effect: float) -> float:
        return nct.sf(threshold, freedom, effect) + nct.cdf(-threshold, freedom, effect) - power

    return brentq(lacking, 0, 2 * threshold)


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p values for their number (Holm, 1979); NaN are not counted and stay."""
    p = np.asarray(p, float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN come last
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return corrected


def difference_text(difference: Difference, scale: float = 1, digits: int = 1, holds: bool = False) -> str:
    """Write ``+2.3 [+1.1, +3.5]* (1.7)``: mean, interval, an asterisk if it ``holds``, and the detectable difference.

    There is the mean alone for a single seed, and ``missing`` without any.
    """
    if np.isnan(difference.mean):
        return 'missing'
    mean, low, high, _, detectable = (f'{scale * value:+.{digits}f}' for value in difference)
    rest = '' if np.isnan(difference.low) else f' [{low}, {high}]{"*" if holds else ""} ({detectable[1:]})'
    return mean + rest


def _caption(study: Study, rows: Sequence[str]) -> str:
    """Say of how many seeds a table is, and how many subjects a training step of its rows had."""
    subjects: Dict[int, Dict[str, None]] = {}
    for job in study.jobs:
        row = job.labels['row']
        node = study.content['backbones'][job.labels['backbone']]['pretrain'][row]
        if job.labels['task'] == 'pretrain' and row in rows and 'config' in node:  # random weights have had no step
            sampler = json.loads(job.settings).get('train_dataloader', {}).get('batch_sampler', {})
            count = node.get('options', {}).get('train_dataloader.batch_sampler.subjects_per_step')
            subjects.setdefault(int(count or sampler.get('subjects_per_step', 1)), {})[row] = None
    texts = [f'Mean ± std over {len(study.seeds)} seeds']
    for count, names in sorted(subjects.items()):
        which = f' ({", ".join(names)})' if len(subjects) > 1 else ''
        texts.append(f'{count} subject{"s" if count > 1 else ""} in a training step{which}')
    return '; '.join(texts) + '.'


def draw_study(results: StudyResults, backbone: str) -> Optional[Figure]:
    """Draw what there is of a backbone: learning curves, retrieval of held-out images, and encoding by ROI."""
    figure = Figure(figsize=(12, 8.4), layout='constrained')
    panels = figure.subplots(2, 2).ravel()
    looks = {
        row: dict(color=f'C{number % 10}', linestyle=('-', '--', ':')[number // 10 % 3])
        for number, row in enumerate(results.study.content['backbones'][backbone]['pretrain'])
    }
    curves = {row: list(results.get(backbone, row, 'pretrain', 'curves').values()) for row in looks}
    ranks = {row: list(results.get(backbone, row, 'pretrain', 'ranks').values()) for row in looks}
    metrics = {row: list(results.get(backbone, row, 'encode', 'metrics').values()) for row in looks}
    _draw_curves(panels[0], looks, curves, CURVES[:1])
    panels[0].set(title='Contrastive loss of training batches', xlabel='iteration', ylabel='L_con')
    _draw_curves(panels[1], looks, curves, CURVES[1:])
    panels[1].set(title='Test images that find their own response (or caption) first', xlabel='epoch', ylabel='top-1')
    _draw_recall(panels[2], looks, {row: [Ranks(*map(np.asarray, r)) for r in found] for row, found in ranks.items()})
    _draw_rois(panels[3], looks, metrics)
    for axes in panels:
        if axes.has_data():
            axes.spines[['top', 'right']].set_visible(False)
            axes.legend(fontsize=8, frameon=False)
        else:
            axes.remove()
    return figure if figure.axes else None


Looks = Mapping[str, Mapping[str, str]]
"""Row → colour and line style."""


def _draw_curves(axes: Axes, looks: Looks, curves: Mapping[str, Sequence[dict]], names: Sequence[str]) -> None:
    """Draw what trainings logged, a line for each seed."""
    for row, by_seed in curves.items():
        for seed, curve in enumerate(of_seed[name] for of_seed in by_seed for name in names if name in of_seed):
            steps = sorted(map(int, curve))
            values = [curve[str(step)] for step in steps]
            axes.plot(steps, values, **looks[row], linewidth=1.2, marker='.', label=None if seed else row)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_recall(axes: Axes, looks: Looks, ranks: Mapping[str, Sequence[Ranks]]) -> None:
    """Draw the share of test images whose partner is among the first k: mean over seeds, their range, and chance."""
    for row, by_seed in ranks.items():
        if by_seed:
            recall = np.stack([recall_curve(of_seed) for of_seed in by_seed])
            k = np.arange(1, recall.shape[1] + 1)
            axes.plot(k, recall.mean(0), **looks[row], label=row)
            axes.fill_between(k, recall.min(0), recall.max(0), color=looks[row]['color'], alpha=0.2, linewidth=0)
    candidates = [of_seed.candidates for by_seed in ranks.values() for of_seed in by_seed]
    if candidates:
        m = np.concatenate(candidates)
        k = np.arange(1, m.max() + 1)
        axes.plot(k, [np.minimum(n / m, 1).mean() for n in k], 'k:', label='chance')
    axes.set(title='Test images whose own response (or caption) is among the first k', xscale='log', xlabel='k')


def _draw_rois(axes: Axes, looks: Looks, metrics: Mapping[str, Sequence[dict]]) -> None:
    """Draw the PCC by ROI: mean over seeds with std, and the noise ceiling."""
    frames = {row: pd.DataFrame(found).filter(regex=r'pcc_roi_(?!.*_(low|high)$)') for row, found in metrics.items()}
    frames = {row: frame for row, frame in frames.items() if frame.size}
    for number, (row, frame) in enumerate(frames.items()):
        rois = [name.partition('pcc_roi_')[2] for name in frame]
        place, width = np.arange(len(rois)), 0.8 / len(frames)
        x = place + (number - (len(frames) - 1) / 2) * width
        axes.bar(x, frame.mean(), width, yerr=frame.std().fillna(0), color=looks[row]['color'], label=row)
        if number == 0:
            ceilings = [metrics[row][0].get(f'encoding/ceiling_roi_{roi}', np.nan) for roi in rois]
            axes.hlines(ceilings, place - 0.45, place + 0.45, color='k', linestyle=':', label='noise ceiling')
            axes.set_xticks(place, rois, fontsize=8, rotation=45, ha='right', rotation_mode='anchor')
    axes.set(title='Encoding by ROI: raw Pearson r on test images', ylabel='Pearson r')


def write_report(studies: Sequence[Study], out: Path, kept: Outcomes, title: Optional[str] = None) -> List[Path]:
    """Write the report of studies: a page, Markdown, CSV files with every single value, and ``results.json``.

    Args:
        studies: The studies.
        out: Folder to write.
        kept: Outcomes of :func:`read_results`, for jobs that are not done here.
        title: Heading; by default the studies' names.

    Returns:
        The files.

    Raises:
        ValueError: A study asks for no tables, or two of them have jobs of the same name with other settings.
    """
    outcomes, owners = dict(kept), {}
    files: Dict[str, str] = {}
    parts = []
    for study in studies:
        if not study.content.get('tables'):
            raise ValueError(f'STUDY: {study.path} asks for no tables.')
        results = StudyResults(study, outcomes)
        for name, outcome in results.outcomes.items():
            if name in owners and outcomes[name]['fingerprint'] != outcome['fingerprint']:
                raise ValueError(
                    f'STUDY: {owners[name]} and {study.path} both have {name}, with other settings; {RESULTS} can keep '
                    'one of them only. Give a row another name, or report them in two folders.'
                )
            owners[name], outcomes[name] = study.path, outcome
        tables = [make_table(results, layout) for layout in study.content['tables']]
        for number, table in enumerate(tables, 1):
            files[f'{study.path.stem}_table{number}.csv'] = table.values.to_csv(index=False, na_rep='nan')
        progress = f'{len(results.outcomes)} of {len(study.jobs)} jobs are done.'
        if results.stale:
            progress += f' {results.stale} were done with other settings, and are left out.'
        for metric, where in results.lacking.items():
            remedy = 'correct the table, or remove that file and run the study again'
            progress += f' {metric} is not in {where}/metrics.json: {remedy}.'
        drawn = {name: draw_study(results, name) for name in study.content['backbones']}
        figures = {name: _data_uri(figure) for name, figure in drawn.items() if figure}
        parts.append(dict(name=study.name, progress=progress, tables=tables, figures=figures))
    title = title or '; '.join(part['name'] for part in parts)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name('report.html').read_text('utf-8')
    )
    with pd.option_context('display.max_colwidth', None):
        files['report.html'] = template.render(title=title, version=__version__, parts=parts, note=DIFFERENCES)
    text = [f'# {title}']
    for part in parts:
        text += [f'## {part["name"]}', part['progress'], *map(markdown, part['tables'])]
    files['report.md'] = '\n\n'.join(text) + '\n'
    lines = ',\n'.join(f'{json.dumps(name)}: {json.dumps(outcome)}' for name, outcome in sorted(outcomes.items()))
    files[RESULTS] = f'{{"format": {json.dumps(_FORMAT)}, "jobs": {{\n{lines}\n}}}}\n'
    for name, content in files.items():
        with atomic_write(out / name) as temporary:
            temporary.write_text(content, 'utf-8')
    return [out / name for name in files]


def markdown(table: Table) -> str:
    """Write a table and its differences for a Markdown file."""
    parts = [f'### {table.title}', table.caption, grid(table.means)]
    if len(table.differences):
        parts += [DIFFERENCES, grid(table.differences)]
    return '\n\n'.join(parts)


def grid(frame: pd.DataFrame) -> str:
    """Write a table of texts in Markdown."""
    lines = [list(frame.columns), ['---'] * frame.shape[1], *frame.to_numpy().tolist()]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _data_uri(figure: Figure) -> str:
    stream = io.BytesIO()
    with rc_context({'svg.hashsalt': 'mmnfn'}):  # the same figure has the same bytes
        figure.savefig(stream, format='svg', metadata=dict(Date=None))
    return f'data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}'
