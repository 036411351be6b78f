"""What every room uses: files that are replaced as a whole, progress bars, the error of unusable data."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Tuple, Union

from tqdm import tqdm

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(ValueError):
    """Something that the user can put right; the tools print its one line and exit with code 2."""


class DataError(UserError):
    """A file of a run's data cannot be used. Where a data worker found it, PyTorch puts the worker's traceback into the
    message; only the line itself is printed."""

    def __str__(self) -> str:
        return super().__str__().rsplit('DataError: ', 1)[-1].strip()


def listed(values: Any) -> List[Any]:
    """Turn a single text or number into a list of one, as ``--cfg-options subjects=1`` gives it; others into a list."""
    return [values] if isinstance(values, (str, int)) else list(values)


def walk(node: Any, key: str = '') -> Iterator[Tuple[str, Any]]:
    """Visit every dict in a config node, outer ones first, with its dotted key."""
    children = enumerate(node) if isinstance(node, (list, tuple)) else ()
    if isinstance(node, dict):
        yield key, node
        children = list(node.items())
    for name, child in children:
        yield from walk(child, f'{key}.{name}')


def is_disk_full(error: BaseException) -> bool:
    """Check whether an error says that a disk, a quota or the allowed size of a file is exhausted."""
    texts = [os.strerror(number) for number in NO_SPACE]  # HDF5 and torch say it in words only
    return getattr(error, 'errno', None) in NO_SPACE or any(text in str(error) for text in texts)


@contextmanager
def name_full_disk(path: Union[str, Path]) -> Iterator[None]:
    """Raise what fails within the block because the disk is full as the system's OSError with the path."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if not is_disk_full(error) or getattr(error, 'filename', None):
            raise
        number = getattr(error, 'errno', None) or errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def atomic_write(path: Union[str, Path], size: int = 0) -> Iterator[Path]:
    """Write a file under a temporary name beside it, and rename it when the block ends without an error.

    Who opens ``path`` finds the old file or the whole new one, whenever the process or the machine dies. The temporary
    name is always the same, so what a killed process left is overwritten by the next attempt.

    Args:
        path: The file; its folder is made.
        size: Bytes that it will have. They are reserved first, because HDF5 can crash where a disk is full.

    Yields:
        The temporary path to write to.

    Raises:
        OSError: The disk is full; the error has the path.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f'.{path.name}.tmp')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with name_full_disk(path):
            if size and hasattr(os, 'posix_fallocate'):  # macOS has none
                with open(temporary, 'wb') as file:
                    os.posix_fallocate(file.fileno(), 0, size)
            yield temporary
            with open(temporary, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def progress_bar(*args: Any, show: bool = True, **kwargs: Any) -> tqdm:
    """Make a tqdm bar that appears only if standard error is a terminal, so that logs stay readable.

    Args:
        *args, **kwargs: Of tqdm.
        show: False hides it on a terminal, too.

    The environment variable ``MMNFN_PROGRESS=1`` shows bars everywhere, for programs that read them, as the demo does.
    """
    watched = sys.stderr.isatty() or os.environ.get('MMNFN_PROGRESS') == '1'
    return tqdm(*args, disable=not (show and watched), **kwargs)
