"""Which subject saw which image when."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, NamedTuple, Tuple

import numpy as np

from .files import existing, read_rows
from .mat_file import read_matrices
from .release import FULL_SESSIONS, NUM_STIMULI, SUBJECT_SHAPES, TRIALS_PER_SESSION


class Design(NamedTuple):
    """The experiment design, 0-based.

    Attributes:
        path: The file.
        order: (trials,) which of a subject's own images trial t shows, the same for all subjects;
            t = 750·(session − 1) + trial within the session.
        own: (subjects, images) 73k id of each of a subject's own images; the shared ones come first.
        shared: Number of shared images.
    """

    path: Path
    order: np.ndarray
    own: np.ndarray
    shared: int

    @property
    def subjects(self) -> Tuple[str, ...]:
        """The subjects of the experiment."""
        return tuple(SUBJECT_SHAPES)[: len(self.own)]

    def trials(self, subject: str, sessions: int) -> Tuple[np.ndarray, np.ndarray]:
        """73k id (0-based) of each trial of the first sessions, and whether its image is shared.

        Returns:
            (750·sessions,) int and (750·sessions,) bool.

        Raises:
            ValueError: If the design has no such subject or fewer sessions.
        """
        if subject not in self.subjects:
            raise ValueError(f'{self.path} has {len(self.own)} subjects, so none is {subject}.')
        count = sessions * TRIALS_PER_SESSION
        if count > len(self.order):
            raise ValueError(
                f'{self.path} plans {len(self.order)} trials, but {subject} has {sessions} sessions ({count} trials) '
                'of betas. The design belongs to another data set.'
            )
        order = self.order[:count]
        return self.own[self.subjects.index(subject), order], order < self.shared

    def presentations(self, sessions: int) -> np.ndarray:
        """(images,) how often each of a subject's own images is shown in the first sessions."""
        return np.bincount(self.order[: sessions * TRIALS_PER_SESSION], minlength=self.own.shape[1])

    def full_sessions(self) -> Dict[str, int]:
        """Sessions that each subject completed; in a design shorter than NSD's, at most those planned."""
        planned = len(self.order) // TRIALS_PER_SESSION
        return {name: min(planned, FULL_SESSIONS[name]) for name in self.subjects}

    def seen_by_all(self, sessions: Dict[str, int]) -> np.ndarray:
        """73k ids (0-based, ascending) of the shared images that every subject saw three times.

        Args:
            sessions: Subject → sessions; subjects left out count with all that they completed. With all sessions of
                NSD these are its 515 images.
        """
        counts = {**self.full_sessions(), **sessions}
        common = np.sort(self.own[0, : self.shared])
        for name, own in zip(self.subjects, self.own):  # whose shared images may be in another order
            thrice = self.presentations(counts[name])[: self.shared] == 3
            common = np.intersect1d(common, own[: self.shared][thrice])
        return common


def read_design(path: Path) -> Design:
    """Read ``nsd_expdesign.mat``.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is damaged, or ids are out of range.
    """
    existing(path, 'design file', 'Download nsddata/experiments/nsd/nsd_expdesign.mat.')
    try:
        mat = read_matrices(path.read_bytes(), ('masterordering', 'subjectim', 'sharedix'))
        order = _whole_numbers(mat['masterordering']).ravel() - 1
        own = _whole_numbers(mat['subjectim']) - 1
        sharedix = _whole_numbers(mat['sharedix']).ravel() - 1
    except Exception as error:  # a damaged file raises several kinds
        raise ValueError(f'{path} cannot be read as the NSD design: {error!r}. Download it again.') from error
    if own.ndim != 2 or not 1 <= len(own) <= len(SUBJECT_SHAPES) or not order.size or len(order) % TRIALS_PER_SESSION:
        raise ValueError(
            f'{path}: subjectim has shape {own.shape} and masterordering {order.size} entries; expected (subjects, '
            f'images) and a multiple of {TRIALS_PER_SESSION}. Download it again.'
        )
    if order.min() < 0 or order.max() >= own.shape[1] or own.min() < 0 or own.max() >= NUM_STIMULI:
        raise ValueError(
            f'{path}: ids out of range: masterordering {order.min() + 1}…{order.max() + 1} for {own.shape[1]} images, '
            f'subjectim {own.min() + 1}…{own.max() + 1} for {NUM_STIMULI} stimuli. Download it again.'
        )
    shared = len(sharedix)
    if shared > own.shape[1] or any((np.sort(row[:shared]) != np.sort(sharedix)).any() for row in own):
        raise ValueError(
            f'{path}: the first {shared} images of subjectim are not those of sharedix. Download it again.'
        )
    if any(len(np.unique(row)) != len(row) for row in own):
        raise ValueError(f'{path}: subjectim names an image twice for one subject. Download it again.')
    return Design(path, order, own, shared)


def check_responses(path: Path, image_id: np.ndarray) -> None:
    """Compare the behavioural table with the design, trial by trial; a missing table is legal.

    Args:
        path: ``responses.tsv``.
        image_id: (trials,) 0-based 73k id of each trial with betas.

    Raises:
        ValueError: If the table is damaged, ends before the betas do, or names another image.
    """
    if not path.exists():
        return
    try:
        ids = _whole_numbers(read_rows(path, '\t', ['73KID'])['73KID'].to_numpy()) - 1
    except Exception as error:  # pandas raises many kinds for a damaged file
        raise ValueError(f'{path} cannot be read as the table of trials: {error}. Download it again.') from error
    if len(ids) < len(image_id):
        raise ValueError(
            f'{path} holds {len(ids)} trials, but there are betas of {len(image_id)}. Download the table again, or use '
            f'only the first {len(ids) // TRIALS_PER_SESSION} session(s).'
        )
    wrong = np.flatnonzero(ids[: len(image_id)] != image_id)
    if wrong.size:
        t = wrong[0]
        raise ValueError(
            f'{path}: trial {t % TRIALS_PER_SESSION + 1} of session {t // TRIALS_PER_SESSION + 1} shows 73KID '
            f'{ids[t] + 1}, but the design file says {image_id[t] + 1} (both 1-based). They belong to different '
            'subjects or data sets; download both again.'
        )


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    """As int64; ValueError where there is something else among them."""
    if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all() or (values % 1 != 0).any():
        raise ValueError(f'it holds {values.dtype} values that are no whole numbers')
    return values.astype(np.int64)
