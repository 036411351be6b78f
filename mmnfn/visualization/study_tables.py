"""A study's tables, with the paper's figures and with differences between rows."""

from __future__ import annotations

import csv
import io
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from mmengine.config import Config

from mmnfn.experiments.results import StudyResults, formatted, formatted_difference, paired_difference, summarise
from mmnfn.experiments.study import Study
from mmnfn.utils import listed

REFERENCES = ('random', 'nfn-shuffled')
"""Rows that every other row is compared with, where a table has them and does not say otherwise."""

_BOXES_AND_MASKS = ('APbox', 'AP50box', 'AP75box', 'APsegm', 'AP50segm', 'AP75segm')
# Of the paper (Lang, Fang and Su, 2025), by backbone, row and column; APs and mIoU in percent, PCC times 100. Those of
# its random and CLIP rows are derived from differences that its text states.
PAPER: Dict[Tuple[str, str], Dict[str, str]] = {
    ('swin-s', 'random'): dict(zip(_BOXES_AND_MASKS, ('41.4', '63.5', '45.6', '38.5', '60.9', '41.4'))),
    ('swin-s', 'clip'): dict(zip(_BOXES_AND_MASKS, ('42.0', '64.7', '46.1', '39.3', '61.4', '42.0'))),
    ('swin-s', 'nfn'): dict(
        zip(_BOXES_AND_MASKS, ('43.7 ± 0.3', '65.9 ± 0.6', '47.5 ± 0.4', '43.2 ± 0.3', '64.1 ± 0.6', '43.4 ± 0.3'))
    ),
    ('convnext-s', 'random'): dict(
        zip(_BOXES_AND_MASKS, ('42.7', '65.5', '46.0', '39.9', '62.3', '42.1')), mIoU='39.2', PCC='54.2'
    ),
    ('convnext-s', 'clip'): dict(
        zip(_BOXES_AND_MASKS, ('42.9', '66.2', '46.3', '40.9', '63.1', '43.1')), mIoU='41.3', PCC='55.7'
    ),
    ('convnext-s', 'nfn'): dict(
        zip(_BOXES_AND_MASKS, ('45.2 ± 0.2', '68.3 ± 0.3', '50.1 ± 0.3', '44.1 ± 0.3', '65.1 ± 0.4', '45.4 ± 0.5')),
        mIoU='42.9',
        PCC='57.4',
    ),
    ('convnext-s', 'nfn-1d'): dict(APbox='41.8', APsegm='41.7'),
    ('convnext-s', 'nfn-no-guidance'): dict(APbox='42.6', mIoU='41.8'),
}


class Column(NamedTuple):
    """One figure of a table.

    Attributes:
        name: Heading, e.g. ``'APbox'``.
        task, metric: Where it is found.
        scale: What it is multiplied by.
        digits: Behind the point.
    """

    name: str
    task: str
    metric: str
    scale: float = 1.0
    digits: int = 1


class Layout(NamedTuple):
    """What a table of a study is to have.

    Attributes:
        title: Its heading.
        rows: Names of rows.
        columns: Figures.
        references: Rows that the others are compared with.
    """

    title: str
    rows: Tuple[str, ...]
    columns: Tuple[Column, ...]
    references: Tuple[str, ...]


class Table(NamedTuple):
    """A table, ready to be written.

    Attributes:
        title: Its heading.
        caption: What its figures are: of how many seeds, and how many subjects a training step had.
        head: Column headings.
        rows: Texts, as many as headings each.
        papers: Which columns are the paper's.
        difference_head: Column headings of the differences.
        differences: Texts of the paired differences.
        clear: Of each of those texts, whether its interval is on one side of zero.
    """

    title: str
    caption: str
    head: Tuple[str, ...]
    rows: List[Tuple[str, ...]]
    papers: Tuple[int, ...]
    difference_head: Tuple[str, ...]
    differences: List[Tuple[str, ...]]
    clear: List[Tuple[bool, ...]]


def read_layouts(study: Study) -> List[Layout]:
    """The tables that a study's file asks for.

    Raises:
        ValueError: A table lacks an entry, or has a wrong one.
    """
    layouts = []
    for number, node in enumerate(study.content.get('tables') or [], 1):
        where = f'{study.path}, tables, number {number}'
        known = {'title', 'rows', 'columns', 'references'}
        if not isinstance(node, Mapping) or set(node) - known or not node.get('columns'):
            raise ValueError(
                f'STUDY: {where} must have title, columns and, if not all are meant, rows; references are optional.'
            )
        columns = []
        if not isinstance(node['columns'], Mapping):
            raise ValueError(f'STUDY: {where}, columns must be a mapping, but is {node["columns"]!r}.')
        for name, content in node['columns'].items():
            try:
                columns.append(Column(name=str(name), **content))
                columns[-1] = columns[-1]._replace(scale=float(columns[-1].scale), digits=int(columns[-1].digits))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f'STUDY: {where}, columns.{name}: {error}. It has task, metric, scale, digits.'
                ) from error
        tasks = {job.labels['task'] for job in study.jobs}
        unknown = [column.task for column in columns if column.task not in tasks]
        if unknown:
            raise ValueError(f'STUDY: {where} names the task {unknown[0]!r}; there are {", ".join(sorted(tasks))}.')
        rows = listed(node.get('rows') or _rows(study))
        unknown = [row for row in rows if row not in _rows(study)]
        if unknown:
            raise ValueError(f'STUDY: {where} names the row {unknown[0]!r}, which is not pretrained.')
        references = listed(node.get('references', REFERENCES) or [])
        unknown = [row for row in references if 'references' in node and row not in rows]
        if unknown:
            raise ValueError(f'STUDY: {where}, references names {unknown[0]!r}, which is no row of the table.')
        layouts.append(Layout(node.get('title', f'Table {number}'), tuple(rows), tuple(columns), tuple(references)))
    return layouts


def make_table(results: StudyResults, layout: Layout) -> Table:
    """Mean ± s.d. over seeds of every row, the paper's figures beside them where there are any, and differences."""
    study, columns = results.study, layout.columns
    backbones = study.content['backbones']
    paper = {
        name: {row: PAPER.get((node.get('paper', name), row), {}) for row in layout.rows}
        for name, node in backbones.items()
    }
    shown = {c.name for c in columns if any(c.name in figures for rows in paper.values() for figures in rows.values())}
    head = ['backbone', 'weights']
    for column in columns:
        head += [column.name, f'{column.name}, paper'] if column.name in shown else [column.name]
    body, differences, clear = [], [], []
    for backbone, node in backbones.items():
        found = {
            row: [results.figures(backbone, row, c.task, c.metric) for c in columns]
            for row in layout.rows
            if row in (node.get('pretrain') or {})
        }
        for row, figures in found.items():
            texts = []
            for column, by_seed in zip(columns, figures):
                texts.append(formatted(summarise(by_seed, len(study.seeds)), column.scale, column.digits))
                if column.name in shown:
                    texts.append(paper[backbone][row].get(column.name, ''))
            body.append((backbone, row, *texts))
            for reference in layout.references:
                if reference in found and row not in (reference, layout.references[0]):
                    apart = [paired_difference(*pair) for pair in zip(figures, found[reference])]
                    texts = [formatted_difference(d, c.scale, c.digits) for d, c in zip(apart, columns)]
                    differences.append((backbone, f'{row} − {reference}', *texts))
                    clear.append((False, False, *(d.low > 0 or d.high < 0 for d in apart)))
    difference_head = ('backbone', 'difference', *(column.name for column in columns))
    papers = tuple(number for number, name in enumerate(head) if name.endswith(', paper'))
    return Table(layout.title, _caption(study, layout), tuple(head), body, papers, difference_head, differences, clear)


def _caption(study: Study, layout: Layout) -> str:
    """Say what the figures of a table are."""
    rows: Dict[int, List[str]] = {}
    for job in study.jobs:
        row = job.labels['row']
        if job.labels['task'] != 'pretrain' or row not in layout.rows:
            continue
        node = study.content['backbones'][job.labels['backbone']]['pretrain'][row]
        if 'config' in node:  # random weights have had no step
            sampler = (Config.fromfile(job.config).get('train_dataloader') or {}).get('batch_sampler') or {}
            option = (node.get('options') or {}).get('train_dataloader.batch_sampler.subjects_per_step')
            rows.setdefault(int(option or sampler.get('subjects_per_step', 1)), []).append(row)
    steps = [
        f'{count} subject{"s" if count > 1 else ""} in a training step'
        + (f' ({", ".join(dict.fromkeys(names))})' if len(rows) > 1 else '')
        for count, names in sorted(rows.items())
    ]
    return '; '.join([f'Mean ± standard deviation over {len(study.seeds)} seeds', *steps]) + '.'


def markdown(table: Table) -> str:
    """A table and its differences for a Markdown file."""
    lines = [
        f'### {table.title}',
        '',
        table.caption,
        '',
        *_grid(table.head, table.rows),
    ]
    if table.differences:
        lines += ['', 'Paired differences by seed, with 95% intervals (t):', '']
        lines += _grid(table.difference_head, table.differences)
    return '\n'.join(lines)


def comma_separated(results: StudyResults, layout: Layout) -> str:
    """Every single figure of a table: one line for each backbone, row, seed and column, not scaled."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(['backbone', 'weights', 'seed', 'column', 'metric', 'value'])
    for backbone, content in results.study.content['backbones'].items():
        for row in layout.rows:
            if row in (content.get('pretrain') or {}):
                for column in layout.columns:
                    for seed, value in results.figures(backbone, row, column.task, column.metric).items():
                        writer.writerow([backbone, row, seed, column.name, column.metric, repr(value)])
    return stream.getvalue()


def _rows(study: Study) -> List[str]:
    return list(dict.fromkeys(row for b in study.content['backbones'].values() for row in b.get('pretrain') or {}))


def _grid(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> List[str]:
    lines = [f'| {" | ".join(head)} |', f'| {" | ".join("---" for _ in head)} |']
    return lines + [f'| {" | ".join(row)} |' for row in rows]
