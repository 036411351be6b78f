"""What may stand in a study's file."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Mapping, Sequence, Union

KEYS = {
    'study': ('name', 'work_dir', 'seeds', 'processes', 'backbones', 'tables', 'slurm'),
    'backbone': ('pretrain', 'transfer', 'paper'),
    'pretrain': ('config', 'random', 'checkpoint', 'options', 'processes', 'transfer'),
    'transfer': ('config', 'options', 'processes', 'train'),
}

TYPES = {
    'name': (str, 'a text'),
    'work_dir': (str, 'a path'),
    'processes': (int, 'a whole number'),
    'backbones': (dict, 'a mapping'),
    'pretrain': (dict, 'a mapping'),
    'transfer': (dict, 'a mapping'),
    'options': (dict, 'a mapping'),
    'tables': (list, 'a list'),
    'slurm': (dict, 'a mapping'),
    'config': (str, 'a path'),
    'random': (str, "a config's path"),
    'checkpoint': (str, 'a path'),
    'train': (bool, 'true or false'),
    'paper': (str, 'a backbone of the paper'),
}


def check_node(node: Any, kind: str, where: str) -> None:
    """Raise a ValueError for a node that is no mapping, has an unknown entry, or one of a wrong type."""
    if not isinstance(node, Mapping):
        raise ValueError(f'STUDY: {where} must be a mapping with {", ".join(KEYS[kind])}, but is {node!r}.')
    for key, value in node.items():
        if str(key).startswith('x-'):
            continue
        if key not in KEYS[kind]:
            near = difflib.get_close_matches(str(key), KEYS[kind], 1)
            raise ValueError(
                f'STUDY: {where} has an unknown entry {key!r}'
                + (f'; is {near[0]!r} meant?' if near else f'; it can have {", ".join(KEYS[kind])}.')
            )
        # transfer of a backbone is a mapping, and of a row the names of some of them
        wanted = (list, 'a list') if (kind, key) == ('pretrain', 'transfer') else TYPES.get(key)
        if wanted is not None and (not isinstance(value, wanted[0]) or (value is True and wanted[0] is int)):
            raise ValueError(f'STUDY: {where}, {key} must be {wanted[1]}, but is {value!r}.')
        if key == 'processes' and value < 1:
            raise ValueError(f'STUDY: {where}, processes must be at least 1, but is {value}.')


def refuse_entries(node: Mapping, names: Sequence[str], where: str, reason: str) -> None:
    """Raise a ValueError for entries that would do nothing."""
    for name in names:
        if name in node:
            raise ValueError(f'STUDY: {where} has {name}, but {reason}. Remove it.')


def option_text(key: str, value: Any) -> str:
    """A value of ``options`` as --cfg-options reads it back; a ValueError for one that would come out as another."""
    if isinstance(value, Mapping) or (isinstance(value, str) and re.search(r'[,\[\]()]', value)):
        raise ValueError(
            f'STUDY: options, {key}: --cfg-options cannot take {value!r}. Write the entries of a mapping one by one '
            f'({key}.NAME: VALUE), lists in YAML, and texts without commas and brackets; or set it in a config.'
        )
    return str(value).replace(', ', ',')


def check_place(place: Union[str, Path]) -> None:
    """Raise a ValueError for a path that cannot be written into --cfg-options."""
    if re.search(r'[,=\[\]()]', str(place)):
        raise ValueError(
            f"STUDY: {str(place)!r} has a comma, '=' or a bracket in it, which --cfg-options cannot take. "
            'Choose another folder (--work-dir), or a link to this one.'
        )
