"""A study's tables, with the paper's figures and with differences between rows."""

from __future__ import annotations

import csv
import io
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from mmnfn.experiments.results import figures_of, formatted, formatted_difference, paired_difference, summarise
from mmnfn.experiments.study import Study

REFERENCES = ('random', 'nfn-shuffled')
"""Rows that every other row is compared with, where a table has them."""

# Of the paper (Lang, Fang and Su, 2025), by backbone, row and column; APs and mIoU in percent, PCC times 100. Those of
# its random and CLIP rows are derived from differences that its text states.
PAPER: Dict[Tuple[str, str], Dict[str, str]] = {
    ('swin-s', 'random'): dict(APbox='41.4', APsegm='38.5'),
    ('swin-s', 'clip'): dict(APbox='42.0', APsegm='39.3'),
    ('swin-s', 'nfn'): dict(APbox='43.7 ± 0.3', APsegm='43.2 ± 0.3'),
    ('convnext-s', 'random'): dict(APbox='42.7', APsegm='39.9', mIoU='39.2', PCC='54.2'),
    ('convnext-s', 'clip'): dict(APbox='42.9', APsegm='40.9', mIoU='41.3', PCC='55.7'),
    ('convnext-s', 'nfn'): dict(APbox='45.2 ± 0.2', APsegm='44.1 ± 0.3', mIoU='42.9', PCC='57.4'),
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


class Table(NamedTuple):
    """A table, ready to be written.

    Attributes:
        title: Its heading.
        head: Column headings.
        rows: Texts, as many as headings each.
        differences: The same, of the paired differences.
    """

    title: str
    head: Tuple[str, ...]
    rows: List[Tuple[str, ...]]
    differences: List[Tuple[str, ...]]


def read_tables(study: Study) -> List[Tuple[str, List[str], List[Column]]]:
    """Titles, rows and columns of the tables that a study's file asks for.

    Raises:
        ValueError: A table lacks an entry, or has a wrong one.
    """
    tables = []
    for number, node in enumerate(study.content.get('tables') or [], 1):
        where = f'{study.path}, tables, number {number}'
        if not isinstance(node, Mapping) or set(node) - {'title', 'rows', 'columns'} or not node.get('columns'):
            raise ValueError(f'STUDY: {where} must have title, columns and, if not all are meant, rows.')
        columns = []
        for name, content in node['columns'].items():
            try:
                columns.append(Column(name=name, **content))
            except TypeError as error:
                raise ValueError(
                    f'STUDY: {where}, columns.{name}: {error}. It has task, metric, scale, digits.'
                ) from error
        rows = node.get('rows') or _rows(study)
        unknown = [row for row in rows if row not in _rows(study)]
        if unknown:
            raise ValueError(f'STUDY: {where} names the row {unknown[0]!r}, which is not pretrained.')
        tables.append((node.get('title', f'Table {number}'), list(rows), columns))
    return tables


def make_table(study: Study, title: str, rows: Sequence[str], columns: Sequence[Column]) -> Table:
    """Mean ± s.d. over seeds of every row, the paper's figures beside them where there are any, and differences."""
    backbones = list(study.content['backbones'])
    paper = any(column.name in PAPER.get((b, row), {}) for b in backbones for row in rows for column in columns)
    head = ['backbone', 'weights'] + [
        name for c in columns for name in ([c.name, f'{c.name}, paper'] if paper else [c.name])
    ]
    body, differences = [], []
    for backbone in backbones:
        found = {
            row: [figures_of(study, backbone, row, c.task, c.metric) for c in columns]
            for row in rows
            if row in (study.content['backbones'][backbone].get('pretrain') or {})
        }
        for row, figures in found.items():
            texts = []
            for column, by_seed in zip(columns, figures):
                texts.append(formatted(summarise(by_seed, len(study.seeds)), column.scale, column.digits))
                if paper:
                    texts.append(PAPER.get((backbone, row), {}).get(column.name, ''))
            body.append((backbone, row, *texts))
            for reference in REFERENCES:
                if reference != row and reference in found and row != 'random':
                    pairs = zip(columns, figures, found[reference])
                    texts = [formatted_difference(paired_difference(a, b), c.scale, c.digits) for c, a, b in pairs]
                    differences.append((backbone, f'{row} − {reference}', *texts))
    return Table(title, tuple(head), body, differences)


def markdown(table: Table, names: Sequence[str], seeds: int) -> str:
    """A table and its differences for a Markdown file; ``names`` are the columns' headings."""
    lines = [
        f'## {table.title}',
        '',
        f'Mean ± standard deviation over {seeds} seeds.',
        '',
        *_grid(table.head, table.rows),
    ]
    if table.differences:
        head = ('backbone', 'difference', *names)
        lines += ['', 'Paired differences by seed, with 95% intervals (t):', '', *_grid(head, table.differences)]
    return '\n'.join(lines)


def comma_separated(study: Study, rows: Sequence[str], columns: Sequence[Column]) -> str:
    """Every single figure of a table: one line for each backbone, row, seed and column, not scaled."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(['backbone', 'weights', 'seed', 'column', 'metric', 'value'])
    for backbone, content in study.content['backbones'].items():
        for row in rows:
            if row in (content.get('pretrain') or {}):
                for column in columns:
                    for seed, value in figures_of(study, backbone, row, column.task, column.metric).items():
                        writer.writerow([backbone, row, seed, column.name, column.metric, repr(value)])
    return stream.getvalue()


def _rows(study: Study) -> List[str]:
    return list(dict.fromkeys(row for b in study.content['backbones'].values() for row in b.get('pretrain') or {}))


def _grid(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> List[str]:
    lines = [f'| {" | ".join(head)} |', f'| {" | ".join("---" for _ in head)} |']
    return lines + [f'| {" | ".join(row)} |' for row in rows]
