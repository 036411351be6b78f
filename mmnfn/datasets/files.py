"""Paths that must exist."""

from __future__ import annotations

from pathlib import Path


def existing(path: Path, what: str, remedy: str) -> Path:
    """Return ``path``, or raise a FileNotFoundError that names it and says what to do."""
    if not path.exists():
        raise FileNotFoundError(f'{what} is missing: {path} does not exist. {remedy}')
    return path
