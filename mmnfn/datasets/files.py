"""Files that are missing, or are not what they should be."""

from __future__ import annotations

from pathlib import Path


def existing(path: Path, what: str, remedy: str) -> Path:
    """Return ``path``, or raise a FileNotFoundError that names it and says what to do."""
    if not path.exists():
        raise FileNotFoundError(f'{what} is missing: {path} does not exist. {remedy}')
    return path


class Unsuitable(ValueError):
    """A file that can be read, but holds something else; its message says all that the user needs."""
