"""Files that are whole whenever they are there."""

from __future__ import annotations

import io
import os
import os.path as osp
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Union

import torch
from mmengine.fileio import LocalBackend, register_backend

from mmnfn.disk import full_disk_named


@contextmanager
def whole_file(path: Union[str, Path]) -> Iterator[str]:
    """Write a file under a temporary name beside it, and rename it when the block ends without an error.

    Who opens ``path`` finds the old file or the whole new one, whenever the process or the machine dies. The temporary
    name is always the same, so that what a killed process left is overwritten by the next attempt.

    Yields:
        The temporary path to write to.

    Raises:
        NoRoom: The disk is full; the message names ``path``.
    """
    folder, name = osp.split(osp.abspath(path))
    temporary = osp.join(folder, f'.{name}.tmp')
    try:
        with full_disk_named(path):
            os.makedirs(folder, exist_ok=True)
            yield temporary
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
    finally:
        if osp.exists(temporary):
            os.remove(temporary)


def save_whole(content: Any, *paths: Union[str, Path]) -> None:
    """``torch.save`` to one or more files, each of which is replaced as a whole.

    Raises:
        NoRoom: The disk is full; torch itself would not say so.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    for path in paths:
        with whole_file(path) as temporary, open(temporary, 'wb') as file:
            file.write(buffer.getbuffer())


@register_backend('mmnfn_whole_file')
class WholeFileBackend(LocalBackend):
    """MMEngine's backend for local files, with files that are replaced as a whole."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes to a file."""
        with whole_file(filepath) as temporary:
            super().put(obj, temporary)
