"""YAML files in which no alias makes more than there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_NODES = 100_000
"""Entries, those under an alias counted each time; a study of all tables has some thousand."""
MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """Merges entries (``<<``) as long as there are not too many."""

    def fetch_flow_collection_start(self, TokenClass: type) -> None:
        if self.flow_level >= MAX_DEPTH:  # each level makes all later tokens slower
            raise ValueError(f'it has more than {MAX_DEPTH} levels')
        super().fetch_flow_collection_start(TokenClass)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_NODES:
            raise ValueError(f'it merges more than {MAX_NODES} entries')


def load_yaml(path: Path) -> Any:
    """The content of a file.

    Raises:
        ValueError: It is no YAML, no text, or has more entries or levels than can be followed.
    """
    try:
        content = yaml.load(path.read_text('utf-8'), _Loader)
    except (yaml.YAMLError, RecursionError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f'{type(error).__name__}: {error}') from error
    waiting, count = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError(f'its aliases make more than {MAX_NODES} entries, or {MAX_DEPTH} levels')
        if isinstance(value, dict):
            waiting += [(child, depth + 1) for child in (*value, *value.values())]
        elif isinstance(value, (list, tuple, set)):
            waiting += [(child, depth + 1) for child in value]
    return content
