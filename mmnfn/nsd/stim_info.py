"""NSD's stimulus table, which says from which COCO image each stimulus was cut."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence, Union

import numpy as np
import pandas as pd

from .design import read_design
from .files import existing, read_rows

COCO_SPLITS = ('train2017', 'val2017')
ID_COLUMNS = ('nsdId', 'cocoId')


def read_stim_info(path: Union[str, Path], columns: Sequence[str]) -> pd.DataFrame:
    """Read some columns of ``nsd_stim_info_merged.csv``, one row per stimulus.

    Its ids and, where ``nsd_expdesign.mat`` lies beside it as in the release, its shared images are checked too.

    Args:
        path: The file.
        columns: Names, e.g. ``nsdId`` (0-based 73k id), ``cocoId``, ``cocoSplit``, ``shared1000``, ``subject1``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it lacks a column, ids, shared images or splits are not what NSD has, or the design beside it is
            damaged.
    """
    path = existing(
        Path(path), 'stimulus table', 'Download nsddata/experiments/nsd/nsd_stim_info_merged.csv of the NSD release.'
    )
    try:
        table = read_rows(path, ',', {*columns, 'nsdId', 'shared1000'})
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
    if 'nsdId' in table and len(table) and (table.nsdId.min(), table.nsdId.max()) != (0, len(table) - 1):
        raise ValueError(
            f'{path}: nsdId goes from {table.nsdId.min()} to {table.nsdId.max()}; NSD counts its {len(table)} stimuli '
            f'from 0 to {len(table) - 1}. Download it again.'
        )
    design_file = path.with_name('nsd_expdesign.mat')
    if {'nsdId', 'shared1000'} <= set(table) and design_file.exists():
        design = read_design(design_file)
        wrong = np.setxor1d(table.nsdId[table.shared1000 == 1], design.own[0, : design.shared])
        if len(wrong):
            raise ValueError(
                f'{path}: shared1000 is not what sharedix of {design_file} says of {len(wrong)} image(s), the first is '
                f'nsdId {wrong[0]} (0-based). Download both again.'
            )
    if 'cocoSplit' in table:
        unknown = sorted(set(table.cocoSplit.astype(str)) - set(COCO_SPLITS))
        if unknown:
            raise ValueError(f'{path}: cocoSplit is {unknown[0]!r} in some row; expected {" or ".join(COCO_SPLITS)}.')
    return table[list(columns)]


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
