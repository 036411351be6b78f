"""The wanted voxels of all sessions, taken out of the release session by session, so that a killed run can go on."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator, Sequence, Tuple

import numpy as np

from mmnfn.disk import NoRoom, explained, no_room
from mmnfn.utils import progress_bar

from .betas import check_session, read_betas
from .release import TRIALS_PER_SESSION, NSDLayout

VOXELS_COMPARED = 1000
"""Evenly spaced, to tell sessions apart; the 750 betas of a single one would do, if it has data."""


@contextmanager
def working_folder(store: Path, needed_bytes: int) -> Iterator[Path]:
    """Hold the folder ``subj0N.partial`` beside a store while it is being written.

    The folder is removed when the store is complete, and after an error when it holds no session; else it stays, for
    the next call to go on with.

    Args:
        store: The file to be written, ``subj0N.h5``.
        needed_bytes: What will be written in all.

    Yields:
        The folder.

    Raises:
        ValueError: If another process is writing the store.
        OSError: If the disk is too full (:class:`mmnfn.disk.NoRoom`), or the folder cannot be written; the message
            names it.
    """
    folder = store.with_suffix('.partial')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / 'lock', 'w', encoding='utf-8')
    except OSError as error:
        raise OSError(
            error.errno, f'{folder} cannot be written: {error.strerror}. Choose another folder for the stores'
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back by the system when the process ends
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise ValueError(
                    f'{store} is being written by another process. Wait for it, or choose another folder for the '
                    'stores.'
                ) from error
            warnings.warn(
                f'The file system of {folder} has no locks ({error.strerror}): take care that no other process writes '
                'the same stores.',
                stacklevel=2,
            )
        try:
            store.with_name(store.name + '.part').unlink(missing_ok=True)  # of a killed run
            _check_room(store, folder, needed_bytes)
            yield folder
            _remove(folder, lock)
        except (OSError, RuntimeError) as error:
            if no_room(error) and not isinstance(error, NoRoom):
                if any(folder.glob('session*.npy')):
                    kept = f'The sessions that were read are kept in {folder}: free space and run again, or remove it'
                    raise explained(error, store, kept) from error
                raise explained(error, store) from error
            raise
        finally:
            if folder.exists() and not any(folder.glob('session*.npy')):
                _remove(folder, lock)


def _remove(folder: Path, lock: IO[str]) -> None:
    """Remove the working folder with its lock, which NFS keeps under another name as long as it is open."""
    try:
        shutil.rmtree(folder)
    except OSError:
        lock.close()
        shutil.rmtree(folder)


def _check_room(store: Path, folder: Path, needed_bytes: int) -> None:
    missing = needed_bytes - sum(file.stat().st_size for file in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise NoRoom(
            errno.ENOSPC,
            f'{store} needs {missing / 1e9:.2f} GB while it is made, but the disk has {free / 1e9:.2f} GB free. Free '
            'space, choose another folder, or use fewer ROIs or sessions',
        )


class Extraction:
    """Raw betas of the wanted voxels, one file per session in the working folder.

    A session's file carries in its name a digest of what it was made from (place in the tree, size and time of the beta
    file, the voxels), and gets that name when it is whole; so what an earlier run left is used where nothing has
    changed.

    Args:
        layout: The release tree.
        subject: ``'subj0N'``.
        sessions: Sessions (1-based).
        index: (V, 3) x, y, z of the voxels.
        shape: Volume (X, Y, Z).
        folder: The working folder.

    Raises:
        FileNotFoundError, ValueError: If the head of a session's file is not as it should be.
    """

    def __init__(
        self,
        layout: NSDLayout,
        subject: str,
        sessions: Sequence[int],
        index: np.ndarray,
        shape: Tuple[int, int, int],
        folder: Path,
    ):
        self.subject, self.index, self.shape = subject, index, shape
        self.sources = {session: layout.session_file(subject, session) for session in sessions}
        self._files, self._seen = {}, {}
        for session, source in self.sources.items():
            check_session(source, shape)
            status = source.stat()
            name = source.relative_to(layout.root).as_posix()
            origin = repr((name, status.st_size, status.st_mtime_ns, shape, index.shape)).encode()
            digest = hashlib.sha256(origin + np.asarray(index, '<i4').tobytes()).hexdigest()[:16]
            self._files[session] = folder / f'session{session:02d}-{digest}.npy'
        for stale in set(folder.glob('session*')) - set(self._files.values()):
            stale.unlink()

    def run(self, progress: bool = True, position: int = 0) -> None:
        """Take out the sessions that are missing.

        Args:
            progress: Show a progress bar.
            position: Line of the terminal for the bar.

        Raises:
            ValueError: If a session is damaged, or a copy of another one.
        """
        missing = [session for session, file in self._files.items() if not file.exists()]
        with progress_bar(
            total=len(self._files),
            initial=len(self._files) - len(missing),
            desc=f'{self.subject} reading',
            unit='session',
            position=position,
            show=progress,
        ) as bar:
            for session in self.sources:
                if session in missing:
                    self._extract(session)
                    bar.update()
                self._refuse_copy(session)

    def _extract(self, session: int) -> None:
        betas = read_betas(self.sources[session], self.index, self.shape)
        part = self._files[session].with_suffix('.part')
        try:
            with open(part, 'wb') as stream:  # np.save does not say that the disk is full
                np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(betas))
                stream.write(betas)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self._files[session])
        finally:
            part.unlink(missing_ok=True)

    def _refuse_copy(self, session: int) -> None:
        """Raise a ValueError if some voxels have the betas that they have in an earlier session."""
        some = self.read(session, slice(None, None, -(-len(self.index) // VOXELS_COMPARED)))
        earlier = self._seen.setdefault(hashlib.sha256(some).hexdigest(), session)
        if earlier != session:
            raise ValueError(
                f'{self.sources[earlier]} and {self.sources[session]} hold the same betas: one is a copy of the other '
                'under another number. Download both again.'
            )

    def read(self, session: int, voxels: slice) -> np.ndarray:
        """(block, 750) int16 betas of some voxels of a session."""
        return np.array(np.load(self._files[session], mmap_mode='r')[voxels])


def extraction_bytes(voxels: int, sessions: int) -> int:
    """Bytes of the working folder when all sessions are in it."""
    return voxels * sessions * TRIALS_PER_SESSION * np.dtype(np.int16).itemsize
