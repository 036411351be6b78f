"""Files that are whole whenever they are there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Union

import torch
from mmengine.fileio import LocalBackend, register_backend

from mmnfn.utils import atomic_write


def save_whole(content: Any, *paths: Union[str, Path]) -> None:
    """``torch.save`` to one or more files, each of which is replaced as a whole.

    Raises:
        NoRoom: The disk is full; torch itself would not say so.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    for path in paths:
        with atomic_write(path) as temporary, open(temporary, 'wb') as file:
            file.write(buffer.getbuffer())


@register_backend('mmnfn_whole_file')
class WholeFileBackend(LocalBackend):
    """MMEngine's backend for local files, with files that are replaced as a whole."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes to a file."""
        with atomic_write(filepath) as temporary:
            super().put(obj, temporary)
