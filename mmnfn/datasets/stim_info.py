"""NSD's stimulus table, which says from which COCO image each stimulus was cut."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence, Union

import numpy as np
import pandas as pd

from .files import existing

COCO_SPLITS = ('train2017', 'val2017')
MAX_LINE = 100_000
"""Bytes; each name of a column costs pandas time."""
ID_COLUMNS = ('nsdId', 'cocoId')


def read_rows(path: Path, separator: str, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a table, with as many rows as it has lines.

    pandas lets a quotation mark swallow lines, and takes more fields than names for names of rows.

    Raises:
        ValueError: There are other rows than lines, or pandas cannot read it.
    """
    found = path.read_bytes().splitlines()
    lines = sum(bool(line.strip(b' ')) for line in found)
    if max(map(len, found), default=0) > MAX_LINE:
        raise ValueError(f'it has a line of {max(map(len, found))} bytes')
    table = pd.read_csv(path, sep=separator, usecols=lambda name: name in columns)
    whole = len(table) == lines - 1 and isinstance(table.index, pd.RangeIndex)
    if len(table.columns) and not whole:  # without a column there are no rows either
        raise ValueError(f'it has {lines} lines, of which {len(table)} rows can be made')
    return table


def read_stim_info(path: Union[str, Path], columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of ``nsd_stim_info_merged.csv``, one row per stimulus.

    Args:
        path: The file.
        columns: Names, e.g. ``nsdId`` (0-based 73k id), ``cocoId``, ``cocoSplit``, ``shared1000``, ``subject1``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it lacks a column, or ids or splits are not what NSD has.
    """
    path = existing(
        Path(path), 'stimulus table', 'Download nsddata/experiments/nsd/nsd_stim_info_merged.csv of the NSD release.'
    )
    try:
        table = read_rows(path, ',', columns)
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f'{path} cannot be read as a table: {error}. Is it nsd_stim_info_merged.csv?') from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(f'{path} lacks the column(s) {", ".join(missing)}. Is it nsd_stim_info_merged.csv?')
    for name in ID_COLUMNS:
        if name in table and not pd.api.types.is_integer_dtype(table[name]):
            raise ValueError(f'{path}: column {name} must hold whole numbers only. Download it again.')
    for name in table.columns:
        if name.startswith(('subject', 'shared')) and not table[name].isin((0, 1)).all():
            raise ValueError(f'{path}: column {name} must hold 0 and 1, or False and True. Download it again.')
    if 'nsdId' in table and table.nsdId.duplicated().any():
        raise ValueError(
            f'{path}: nsdId {table.nsdId[table.nsdId.duplicated()].iloc[0]} stands in it twice. Download it again.'
        )
    if 'cocoSplit' in table:
        unknown = sorted(set(table.cocoSplit.astype(str)) - set(COCO_SPLITS))
        if unknown:
            raise ValueError(f'{path}: cocoSplit is {unknown[0]!r} in some row; expected {" or ".join(COCO_SPLITS)}.')
    return table


def photographs(path: Path, image_id: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Photograph that each stimulus was cut from: the 73k id of the first stimulus that was.

    In NSD every stimulus is the only one of its COCO image; simulated worlds may have several crops of one. A missing
    table is legal: then each is its own.

    Args:
        path: ``nsd_stim_info_merged.csv``.
        image_id: (images,) 0-based 73k ids.
        shared: 0-based 73k ids of the shared stimuli.

    Returns:
        (images,) 0-based 73k ids.

    Raises:
        ValueError: If the table is damaged, or a shared stimulus and another one are of the same photograph.
    """
    if not path.exists():
        return image_id
    table = read_stim_info(path, ('nsdId', 'cocoId')).set_index('nsdId').sort_index()
    first = pd.Series(table.index, table.index).groupby(table.cocoId).transform('min')
    both = np.intersect1d(first[first.index.isin(shared)], first[~first.index.isin(shared)])
    if both.size:
        raise ValueError(
            f'{path}: {both.size} photograph(s), e.g. COCO id {table.cocoId[both[0]]}, were cut into shared stimuli '
            '(test images) and into others (training images). Simulate the world again.'
        )
    return first.reindex(image_id).fillna(pd.Series(image_id, image_id)).to_numpy(np.int64)
