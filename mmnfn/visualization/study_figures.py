"""Figures of a study's report: learning curves, encoding by ROI, and retrieval."""

from __future__ import annotations

import html
import io
import re
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmnfn.evaluation.retrieval import recall_curve
from mmnfn.experiments.results import StudyResults

# Legible on white and on black.
COLOURS = ('#3d85d9', '#e07b1a', '#2f9e6e', '#b14fa8', '#b08d00', '#c8504b', '#5c9fae', '#8d7bd6', '#8a8f98', '#7a9a2f')
INK = '#010203'
"""Stands for the page's own text colour, whatever it is."""


class Panel(NamedTuple):
    """A small figure.

    Attributes:
        title: What it shows, in a few words.
        caption: How to read it.
        svg: ``<svg>`` element, to be put into a page.
    """

    title: str
    caption: str
    svg: str


Drawing = Tuple[str, str, Callable[[Axes], None]]
"""Title, caption, and what draws it."""


class Look(NamedTuple):
    """How a row is drawn.

    Attributes:
        colour, line, hatch: Matplotlib's; line and hatch tell rows of the same colour apart.
    """

    colour: str
    line: str = '-'
    hatch: str = ''


def looks(rows: Sequence[str]) -> Dict[str, Look]:
    """A look for each row."""
    styles = (('-', ''), ('--', '//'), ('-.', '..'))
    return {
        row: Look(COLOURS[number % len(COLOURS)], *styles[number // len(COLOURS) % len(styles)])
        for number, row in enumerate(rows)
    }


def study_panels(results: StudyResults, backbone: str, rows: Sequence[str], prefix: str = '') -> List[Panel]:
    """All figures of a backbone for which there is something to show.

    Args:
        results: Of the study.
        backbone: Its name.
        rows: Names of rows.
        prefix: Of ids, for pages with several studies.
    """
    drawn = (
        loss_curves(results, backbone, looks(rows)),
        validation_curves(results, backbone, looks(rows)),
        recall_curves(results, backbone, looks(rows)),
        roi_bars(results, backbone, looks(rows)),
    )
    return [_panel(*figure, f'{prefix}{backbone}-{number}-') for number, figure in enumerate(drawn) if figure]


def loss_curves(results: StudyResults, backbone: str, rows: Mapping[str, Look]) -> Optional[Drawing]:
    """L_con of the training batches over iterations, one line for each seed."""
    curves = {row: results.curve(backbone, row, 'loss_con') for row in rows}
    return _curves(
        f'{backbone}: contrastive loss',
        'L_con of training batches; a line for each seed. Rows have other losses besides, which are not comparable.',
        curves,
        rows,
        'iteration',
        'contrastive loss',
    )


def validation_curves(results: StudyResults, backbone: str, rows: Mapping[str, Look]) -> Optional[Drawing]:
    """Top-1 retrieval of test images over epochs, one line for each seed."""
    curves = {}
    for row in rows:
        for partner in ('brain', 'text'):
            curves.setdefault(row, {}).update(results.curve(backbone, row, f'retrieval/image_to_{partner}_top1'))
    return _curves(
        f'{backbone}: retrieval in training',
        'Share of test images that find their own response (or caption) first; a line for each seed.',
        curves,
        rows,
        'epoch',
        'top-1',
        from_zero=True,
    )


def recall_curves(results: StudyResults, backbone: str, rows: Mapping[str, Look]) -> Optional[Drawing]:
    """Share of test images whose partner is among the first k, mean over seeds with their range, and chance."""
    ranks = {row: results.ranks(backbone, row) for row in rows}
    ranks = {row: found for row, found in ranks.items() if found}
    if not ranks:
        return None

    def draw(axes: Axes) -> None:
        for row, found in ranks.items():
            recall = np.stack([recall_curve(of_seed) for of_seed in found.values()])
            k = np.arange(1, recall.shape[1] + 1)
            look = rows[row]
            axes.plot(k, recall.mean(0), color=look.colour, linestyle=look.line, label=row)
            axes.fill_between(k, recall.min(0), recall.max(0), color=look.colour, alpha=0.2, linewidth=0)
        m = np.concatenate([of_seed.candidates for found in ranks.values() for of_seed in found.values()])
        k = np.arange(1, m.max() + 1)
        m, count = np.unique(m, return_counts=True)
        chance = np.average(np.minimum(k[:, None] / m, 1), axis=1, weights=count)
        axes.plot(k, chance, color=INK, linestyle=':', label='chance')
        candidates = int(k[-1])
        axes.set(xscale='log', xlim=(1, candidates), ylim=(0, 1), xlabel='k', ylabel='among the first k')
        ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= candidates]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()

    return (
        f'{backbone}: retrieval of held-out images',
        'Share of test images whose own response (or caption) is among the first k of its subject: mean over seeds, '
        'and their range.',
        draw,
    )


def roi_bars(results: StudyResults, backbone: str, rows: Mapping[str, Look]) -> Optional[Drawing]:
    """PCC by ROI: mean over seeds with standard deviation, and the noise ceiling."""
    metrics = {row: list(results.metrics(backbone, row, 'encode').values()) for row in rows}
    metrics = {row: found for row, found in metrics.items() if found}
    if not metrics:
        return None
    one = next(iter(metrics.values()))[0]
    prefix = 'encoding/pcc_roi_'
    rois = [key[len(prefix) :] for key in one if key.startswith(prefix) and not key.endswith(('_low', '_high'))]

    def draw(axes: Axes) -> None:
        place, width = np.arange(len(rois)), 0.8 / len(metrics)
        for number, (row, found) in enumerate(metrics.items()):
            r = np.asarray([[of_seed[prefix + roi] for roi in rois] for of_seed in found])
            error = r.std(0, ddof=1) if len(r) > 1 else None
            x = place + (number - (len(metrics) - 1) / 2) * width
            look = rows[row]
            style = dict(color=look.colour, hatch=look.hatch, edgecolor=INK, linewidth=0, ecolor=INK)
            axes.bar(x, r.mean(0), width, yerr=error, label=row, **style)
        ceilings = [one.get(f'encoding/ceiling_roi_{roi}', np.nan) for roi in rois]
        axes.hlines(ceilings, place - 0.45, place + 0.45, color=INK, linestyle=':', label='noise ceiling')
        axes.set_xticks(place, [roi.replace('-', '-\n', 1) for roi in rois])
        axes.set(ylim=(0, None), ylabel='Pearson r')

    return (
        f'{backbone}: encoding by ROI',
        'Raw Pearson r on test images, mean over voxels and seeds; error bars are the standard deviation over seeds. '
        'Dotted: the r of a model that knows all.',
        draw,
    )


def _curves(
    title: str,
    caption: str,
    curves: Mapping[str, Dict[int, Dict[int, float]]],
    rows: Mapping[str, Look],
    x: str,
    y: str,
    from_zero: bool = False,
) -> Optional[Drawing]:
    """Row → seed → step → value, as lines; None if there are none."""
    if not any(curves.values()):
        return None

    def draw(axes: Axes) -> None:
        for row, by_seed in curves.items():
            for number, values in enumerate(by_seed.values()):
                steps = sorted(values)
                axes.plot(
                    steps,
                    [values[step] for step in steps],
                    color=rows[row].colour,
                    linestyle=rows[row].line,
                    linewidth=1.2,
                    label=None if number else row,
                    marker='.' if len(steps) < 20 else None,
                )
        axes.set(xlabel=x, ylabel=y)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if from_zero:
            axes.set_ylim(bottom=0)

    return title, caption, draw


def _panel(title: str, caption: str, draw: Callable[[Axes], None], prefix: str) -> Panel:
    """Draw: an ``<svg>`` element without fixed size whose text is text, in the page's font and colour, and whose ids
    start with ``prefix``.
    """
    style = {
        'svg.fonttype': 'none',
        'svg.hashsalt': 'mmnfn',
        'font.family': 'sans-serif',
        'font.size': 9,
        'axes.spines.top': False,
        'axes.spines.right': False,
        **dict.fromkeys(('text.color', 'axes.edgecolor', 'axes.labelcolor', 'xtick.color', 'ytick.color'), INK),
    }
    with rc_context(style):
        figure = Figure(figsize=(4.8, 3.3), layout='constrained')
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        columns = 2 if len(axes.get_legend_handles_labels()[1]) > 5 else 3
        figure.legend(loc='outside upper left', ncols=columns, frameon=False, fontsize=8)
        stream = io.StringIO()
        figure.savefig(stream, format='svg', transparent=True, metadata=dict(Date=None, Creator=None))
    svg = stream.getvalue()
    svg = svg[svg.index('<svg') :].replace(INK, 'currentColor')
    prefix = re.sub('[^a-zA-Z0-9-]', '_', prefix)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf'\g<1>{prefix}', svg)
    head, _, rest = svg.partition('>')
    head = re.sub(r' (width|height)="[^"]*"', '', head)
    return Panel(title, caption, f'{head} role="img" aria-label="{html.escape(title)}">{rest}')
