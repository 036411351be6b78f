"""Files that are missing, or are not what they should be, and tables of text."""

from __future__ import annotations

from pathlib import Path
from typing import Collection

import pandas as pd

MAX_LINE = 100_000
"""Bytes; each name of a column costs pandas time."""


def existing(path: Path, what: str, remedy: str) -> Path:
    """Return ``path``, or raise a FileNotFoundError that names it and says what to do."""
    if not path.exists():
        raise FileNotFoundError(f'{what} is missing: {path} does not exist. {remedy}')
    return path


class Unsuitable(ValueError):
    """A file that can be read, but holds something else; its message says all that the user needs."""


def read_rows(path: Path, separator: str, columns: Collection[str]) -> pd.DataFrame:
    """Read some columns of a table, with as many rows as it has lines.

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
