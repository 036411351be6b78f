"""Which subject saw which image when: the design, the tables of trials and stimuli, and what they say of a subject."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import pandas as pd
import scipy.io

from .release import FULL_SESSIONS, NUM_STIMULI, SUBJECT_SHAPES, TRIALS_PER_SESSION, NSDLayout, existing

NORMALIZATIONS = ('train', 'all', 'none')
COCO_SPLITS = ('train2017', 'val2017')


class Design(NamedTuple):
    """Hold the experiment design, 0-based.

    Attributes:
        path: The file.
        order: (trials,) position among a subject's own images of the image that trial t shows, the same for all
            subjects; t = 750·(session − 1) + trial within the session.
        own: (subjects, images) 73k id of each of a subject's own images; the shared ones come first.
        shared: Number of shared images.
    """

    path: Path
    order: np.ndarray
    own: np.ndarray
    shared: int

    @property
    def subjects(self) -> Tuple[str, ...]:
        """Name the subjects of the experiment."""
        return tuple(SUBJECT_SHAPES)[: len(self.own)]

    def trials(self, subject: str, sessions: int) -> Tuple[np.ndarray, np.ndarray]:
        """Return the 73k id (0-based) of each trial of the first sessions, and whether its image is shared.

        Raises:
            ValueError: If the design has no such subject or fewer sessions.
        """
        if subject not in self.subjects:
            raise ValueError(f'{self.path} has {len(self.own)} subjects, so none is {subject}.')
        count = sessions * TRIALS_PER_SESSION
        if count > len(self.order):
            raise ValueError(
                f'{self.path} plans {len(self.order)} trials, but {subject} has {sessions} sessions ({count} trials) '
                'of betas. The design belongs to another dataset.'
            )
        order = self.order[:count]
        return self.own[self.subjects.index(subject), order], order < self.shared

    def presentations(self, sessions: int) -> np.ndarray:
        """Count how often each of a subject's own images is shown in the first sessions, (images,)."""
        return np.bincount(self.order[: sessions * TRIALS_PER_SESSION], minlength=self.own.shape[1])

    def full_sessions(self) -> Dict[str, int]:
        """Return the sessions that each subject completed; in a design shorter than NSD's, at most those planned."""
        planned = len(self.order) // TRIALS_PER_SESSION
        return {name: min(planned, FULL_SESSIONS[name]) for name in self.subjects}

    def seen_by_all(self, sessions: Dict[str, int]) -> np.ndarray:
        """Find the shared images that every subject saw three times, 73k ids (0-based, ascending).

        Args:
            sessions: Subject → number of sessions; the other subjects count with all that they completed. With all
                sessions of NSD these are its 515 images.
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
        mat = scipy.io.loadmat(path, variable_names=('masterordering', 'subjectim', 'sharedix'))
        order = mat['masterordering'].astype(np.int64).ravel() - 1
        own = mat['subjectim'].astype(np.int64) - 1
        sharedix = mat['sharedix'].astype(np.int64).ravel() - 1
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise ValueError(f'{path} cannot be read as the NSD design: {error!r}. Download it again.') from error
    if own.ndim != 2 or len(own) > len(SUBJECT_SHAPES) or len(order) % TRIALS_PER_SESSION:
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
    return Design(path, order, own, shared)


def check_responses(path: Path, image_id: np.ndarray) -> None:
    """Compare the behavioural table with the design, trial by trial; a missing table is fine.

    Args:
        path: ``responses.tsv``.
        image_id: (trials,) 0-based 73k id of each trial with betas.

    Raises:
        ValueError: If the table is damaged, ends before the betas do, or names another image.
    """
    if not path.exists():
        return
    try:
        ids = pd.read_csv(path, sep='\t', usecols=['73KID'], dtype={'73KID': np.int64})['73KID'].to_numpy() - 1
    except (ValueError, OSError) as error:
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
            'subjects or datasets; download both again.'
        )


def read_stim_info(path: Union[str, Path], columns: Sequence[str]) -> pd.DataFrame:
    """Read some columns of ``nsd_stim_info_merged.csv``, one row per stimulus.

    The shared images are compared with ``nsd_expdesign.mat`` where it lies beside the table, as in the release.

    Args:
        path: The file.
        columns: Names, e.g. ``nsdId`` (0-based 73k id), ``cocoId``, ``cocoSplit``, ``shared1000``, ``subject1``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it lacks a column, or holds other ids, shared images or splits than NSD.
    """
    path = Path(path)
    existing(path, 'stimulus table', 'Download nsddata/experiments/nsd/nsd_stim_info_merged.csv of the NSD release.')
    wanted = {*columns, 'nsdId', 'shared1000'}
    try:
        table = pd.read_csv(path, usecols=lambda name: name in wanted, dtype=dict(nsdId=np.int64, cocoId=np.int64))
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f'{path} cannot be read as a table: {error}. Is it nsd_stim_info_merged.csv?') from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(f'{path} lacks the column(s) {", ".join(missing)}. Is it nsd_stim_info_merged.csv?')
    count = len(table)
    if 'nsdId' in table and not np.array_equal(np.sort(table.nsdId), np.arange(count)):
        raise ValueError(
            f'{path}: nsdId goes from {table.nsdId.min()} to {table.nsdId.max()}; NSD counts its {count} stimuli '
            f'from 0 to {count - 1}, each once. Download it again.'
        )
    design_file = path.with_name('nsd_expdesign.mat')
    if {'nsdId', 'shared1000'} <= set(table) and design_file.exists():
        design = read_design(design_file)
        wrong = np.setxor1d(table.nsdId[table.shared1000 == 1], design.own[0, : design.shared])
        if len(wrong):
            raise ValueError(
                f'{path}: shared1000 differs from sharedix of {design_file} for {len(wrong)} image(s), the first is '
                f'nsdId {wrong[0]} (0-based). Download both again.'
            )
    unknown = set(table.get('cocoSplit', ())) - set(COCO_SPLITS)
    if unknown:
        raise ValueError(f'{path}: cocoSplit is {min(map(str, unknown))!r} somewhere, expected {COCO_SPLITS}.')
    return table[list(columns)]


def photographs(path: Path, image_id: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Find the photograph that each stimulus was cut from, named by the 73k id of the first stimulus cut from it.

    In NSD every stimulus is the only one of its COCO image; simulated worlds may have several crops of one. A missing
    table is fine: then each stimulus is its own photograph.

    Args:
        path: ``nsd_stim_info_merged.csv``.
        image_id: (images,) 0-based 73k ids, and shared: those of the shared stimuli.

    Raises:
        ValueError: If the table is damaged, or a shared stimulus and another one are of the same photograph.
    """
    if not path.exists():
        return image_id
    table = read_stim_info(path, ('nsdId', 'cocoId')).set_index('nsdId').sort_index()
    first = pd.Series(table.index, table.index).groupby(table.cocoId).transform('min')
    both = np.intersect1d(first[first.index.isin(shared)], first[~first.index.isin(shared)])
    if both.size:
        raise ValueError(
            f'{path}: {both.size} photograph(s), e.g. COCO id {table.cocoId[both[0]]}, were cut into shared stimuli '
            '(test images) and into others (training images). Simulate the world again.'
        )
    return first.reindex(image_id).fillna(pd.Series(image_id, image_id)).to_numpy(np.int64)


class Presentations(NamedTuple):
    """Hold the trials of a subject's sessions, and the images they show.

    Attributes:
        sessions: Sessions (1-based).
        rows: (trials,) row of each trial's image.
        image_id: (images,) 0-based 73k ids, ascending.
        photo_id: (images,) photograph of each, see :func:`photographs`.
        is_test: (images,) bool, the shared images.
        seen_by_all: (images,) bool, seen three times by every subject of the experiment, by this one in these sessions
            and by the others in all of theirs: NSD's 515.
        reference: (trials,) bool, the trials that give mean and std; None for no normalisation.
    """

    sessions: List[int]
    rows: np.ndarray
    image_id: np.ndarray
    photo_id: np.ndarray
    is_test: np.ndarray
    seen_by_all: np.ndarray
    reference: Optional[np.ndarray]

    @property
    def repeats(self) -> np.ndarray:
        """Count how often each image was shown, (images,)."""
        return np.bincount(self.rows)

    def trials(self, position: int) -> slice:
        """Return the trials of the session at this position."""
        return slice(position * TRIALS_PER_SESSION, (position + 1) * TRIALS_PER_SESSION)


def read_presentations(
    layout: NSDLayout, subject: str, max_sessions: Optional[int], normalization: str
) -> Presentations:
    """Read from the design what a subject was shown; the test split is the shared images.

    Raises:
        FileNotFoundError, ValueError: If betas, design and table of trials do not fit together.
    """
    sessions = layout.sessions(subject, max_sessions)
    design = read_design(layout.design_file)
    ids, shared = design.trials(subject, len(sessions))
    check_responses(layout.responses_file(subject), ids)
    image_id, rows = np.unique(ids, return_inverse=True)
    is_test = np.isin(image_id, ids[shared])
    if not is_test.any() or is_test.all():
        raise ValueError(
            f'{layout.design_file}: the {len(sessions)} session(s) of {subject} show {is_test.sum()} shared '
            f'and {(~is_test).sum()} other images; both are needed. Use more sessions.'
        )
    reference = {'train': ~is_test[rows], 'all': np.ones(len(rows), bool), 'none': None}[normalization]
    # The others count with all their sessions, whether or not they are on this disk: else every subject had another set
    seen_by_all = np.isin(image_id, design.seen_by_all({subject: len(sessions)}))
    photo_id = photographs(layout.stim_info_file, image_id, design.own[0, : design.shared])
    return Presentations(sessions, rows, image_id, photo_id, is_test, seen_by_all, reference)
