"""What the trials of a subject's sessions showed."""

from __future__ import annotations

from typing import List, NamedTuple, Optional

import numpy as np

from .design import check_responses, read_design
from .release import TRIALS_PER_SESSION, NSDLayout
from .stim_info import photographs

NORMALIZATIONS = ('train', 'all', 'none')


class Presentations(NamedTuple):
    """The trials of a subject's sessions, and the images they show.

    Attributes:
        sessions: Sessions (1-based).
        rows: (trials,) row of each trial's image.
        image_id: (images,) 0-based 73k ids, ascending.
        photo_id: (images,) photograph of each, see :func:`.stim_info.photographs`.
        is_test: (images,) bool, the shared images.
        seen_by_all: (images,) bool, seen three times by every subject of the experiment, by this one in these sessions
            and by the others in all of theirs: NSD's 515.
        reference: (trials,) bool, the trials that mean and deviation come from; None for no normalisation.
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
        """(images,) how often each image was shown."""
        return np.bincount(self.rows)

    def trials(self, position: int) -> slice:
        """The trials of the session at this position."""
        return slice(position * TRIALS_PER_SESSION, (position + 1) * TRIALS_PER_SESSION)


def read_presentations(
    layout: NSDLayout, subject: str, max_sessions: Optional[int], normalization: str
) -> Presentations:
    """Find out from the design what was shown; the test split is the shared images.

    Raises:
        FileNotFoundError, ValueError: If betas, design and table of trials do not fit together.
    """
    sessions = layout.sessions(subject, max_sessions)
    design = read_design(layout.design_file)
    ids, shared = design.trials(subject, len(sessions))
    check_responses(layout.responses_file(subject), ids)
    image_id, rows = np.unique(ids, return_inverse=True)
    is_test = np.zeros(len(image_id), bool)
    is_test[rows[shared]] = True
    if not is_test.any() or is_test.all():
        raise ValueError(
            f'{layout.design_file}: the {len(sessions)} session(s) of {subject} show {is_test.sum()} shared '
            f'and {(~is_test).sum()} other images; both are needed. Use more sessions.'
        )
    if np.bincount(rows).max() > np.iinfo(np.uint8).max:
        raise ValueError(f'{layout.design_file} shows {subject} an image more than 255 times. Download it again.')
    reference = {'train': ~is_test[rows], 'all': np.ones(len(rows), bool), 'none': None}[normalization]
    # Of the others all sessions count, whether or not they are on this disk: else every subject had another set.
    thrice = np.isin(image_id, design.seen_by_all({subject: len(sessions)}))
    photo_id = photographs(layout.stim_info_file, image_id, design.own[0, : design.shared])
    return Presentations(sessions, rows, image_id, photo_id, is_test, thrice, reference)
