"""What is said when a disk is full."""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union

NUMBERS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
TEXTS = re.compile('No space left on device|File too large|Disk quota exceeded')
REMEDY = 'Free space, or choose another folder, and run the same command again'


class NoRoom(OSError):
    """A file could not be written because the disk is full; the message names it and says what to do."""


def no_room(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or the allowed size of a file is exhausted; HDF5 says it in words."""
    if isinstance(error, OSError) and error.errno in NUMBERS:
        return True
    return isinstance(error, (OSError, RuntimeError)) and TEXTS.search(str(error)) is not None


def explained(error: BaseException, path: Union[str, Path], remedy: str = REMEDY) -> NoRoom:
    """An error with the file, unless it names one already, and what to do."""
    if isinstance(error, NoRoom):
        return error
    named, path = getattr(error, 'filename', None), Path(path).absolute()
    if isinstance(named, str) and path.parent not in Path(named).absolute().parents:
        path = named  # of another disk, such as that of temporary files
    reason = TEXTS.search(str(error))  # HDF5 says more, on several lines
    return NoRoom(errno.ENOSPC, f'{path} could not be written: {reason[0] if reason else error}. {remedy}')


def check_room(path: Union[str, Path], size: int) -> None:
    """Find out whether a file of so many bytes can be written, and leave none.

    For HDF5, which keeps what it is given in memory, and can end the process without a word when it cannot write it.

    Raises:
        OSError: The disk is full.
    """
    trial = Path(f'{path}.room')
    try:
        with open(trial, 'wb') as stream:
            if hasattr(os, 'posix_fallocate'):  # macOS has none
                os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        if no_room(error):  # else the file system cannot say
            raise
    finally:
        trial.unlink(missing_ok=True)


@contextmanager
def full_disk_named(path: Union[str, Path], remedy: str = REMEDY) -> Iterator[None]:
    """Within the block, what fails because the disk is full is a :class:`NoRoom` that names a file.

    Args:
        path: The file or folder that is being written.
        remedy: What to do.

    Raises:
        NoRoom: The disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if no_room(error) and not isinstance(error, NoRoom):
            raise explained(error, path, remedy) from error
        raise
