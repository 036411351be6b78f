"""Looking into configs without running them."""

from __future__ import annotations

import ast
from typing import Any, Dict, Iterator, List, Mapping


def dicts(node: Any) -> Iterator[Mapping]:
    """A config node and every dict below it, outermost first."""
    queue: List[Any] = [node]
    while queue:
        node = queue.pop(0)
        if isinstance(node, Mapping):
            yield node
            queue.extend(node.values())
        elif isinstance(node, (list, tuple)):
            queue.extend(node)


def literal_config(text: str) -> Dict[str, Any]:
    """The literal settings of a config's text, as MMEngine prints one into a checkpoint.

    MMEngine reads such a text by running it, which is not for files of others. Here ``name = value`` is understood
    where the value is made of literals, lists, tuples and ``dict(…)``; everything else is left out.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    settings = {}
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                settings[node.targets[0].id] = _value(node.value)
            except (ValueError, TypeError, RecursionError, MemoryError):
                continue
    return settings


def _value(node: ast.expr) -> Any:
    """Value of an expression, or a ValueError for one that is more than literals."""
    if isinstance(node, ast.Call):
        plain = isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args
        if not plain or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError('a call')
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(child) for child in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):  # as MMEngine prints them
        return float(node.id)
    return ast.literal_eval(node)
