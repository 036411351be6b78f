"""JSON files, with every way in which one can be damaged as one error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def load_json(path: Path) -> Any:
    """The content of a file; ValueError if it is no JSON, no text, or has more levels than can be followed."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError('it has too many levels') from error
