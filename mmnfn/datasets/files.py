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


class DataError(ValueError):
    """A file of a run's data that cannot be used; the tools end with its one line, also where a data worker found it,
    whose whole traceback PyTorch puts into the message."""

    def __str__(self) -> str:
        return super().__str__().rsplit('DataError: ', 1)[-1].strip()
