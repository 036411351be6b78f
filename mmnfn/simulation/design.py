"""The experiment: who sees which image when, by NSD's rules."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from mmnfn.nsd.release import TRIALS_PER_SESSION

IMAGES_PER_SESSION = TRIALS_PER_SESSION // 3
RUNS_PER_SESSION = 12


class Design(NamedTuple):
    """Hold the content of ``nsd_expdesign.mat``, with its 1-based ids.

    Attributes:
        masterordering: (750·S,) number of each trial's image among the subject's own, the same for all subjects.
        subjectim: (subjects, 250·S) 73k ids of each subject's own images; the shared images come first.
        sharedix: (shared,) 73k ids of the shared images, ascending.
        stimpattern: (S, 12, 75), 1 where a slot of a run holds a trial.
        num_stimuli: Number of stimuli, 73000 in NSD.
    """

    masterordering: np.ndarray
    subjectim: np.ndarray
    sharedix: np.ndarray
    stimpattern: np.ndarray
    num_stimuli: int

    def trial_ids(self, subject_index: int) -> np.ndarray:
        """List the 0-based 73k id of each trial (750·S,) of the subject with this 0-based index."""
        return self.subjectim[subject_index, self.masterordering - 1] - 1


def _masterordering(sessions: int, rng: np.random.Generator) -> np.ndarray:
    """Draw three presentations of each image with the lags of NSD.

    The first position is uniform over the experiment, taken as a circle. Each of the other two is near the first with
    probability 0.45 (normal, std 0.33 sessions), and otherwise uniform. These two numbers reproduce the lags of the
    real design: 28% of all pairs within a session, 12% in neighbouring sessions.
    """
    images = IMAGES_PER_SESSION * sessions
    first = rng.uniform(0, sessions, images)
    positions = [first]
    for _ in range(2):
        near = (first + rng.normal(0, 0.33, images)) % sessions
        positions.append(np.where(rng.random(images) < 0.45, near, rng.uniform(0, sessions, images)))
    order = np.argsort(np.concatenate(positions), kind='stable')
    return order % images + 1


def make_design(subjects: int, sessions: int, shared_fraction: float, rng: np.random.Generator) -> Design:
    """Draw a design of ``sessions`` sessions for ``subjects`` people; 10% of the images are shared in NSD."""
    images = IMAGES_PER_SESSION * sessions
    shared = int(round(shared_fraction * images))
    num_stimuli = shared + subjects * (images - shared)
    pool = rng.permutation(num_stimuli) + 1
    sharedix = np.sort(pool[:shared])
    own = pool[shared:].reshape(subjects, images - shared)
    subjectim = np.concatenate([np.broadcast_to(sharedix, (subjects, shared)), own], axis=1)

    pattern = np.zeros((sessions, RUNS_PER_SESSION, 75), np.uint8)
    for session in range(sessions):
        for run in range(RUNS_PER_SESSION):
            trials = 63 - run % 2  # 63 and 62 trials in turn make 750 a session
            last = 71 if run % 2 == 0 else 70
            pattern[session, run, 3:last] = 1
            blanks = rng.choice(np.arange(12, last - 1), last - 3 - trials, replace=False)
            pattern[session, run, blanks] = 0
    return Design(_masterordering(sessions, rng), subjectim, sharedix, pattern, num_stimuli)


def stimulus_table(design: Design, source: pd.DataFrame) -> pd.DataFrame:
    """Make the table of ``nsd_stim_info_merged.csv``.

    Args:
        design: The design.
        source: A row per stimulus, by 0-based 73k id, with cocoId, cocoSplit, cropBox and loss.
    """
    ids = np.arange(design.num_stimuli)
    table = source.reset_index(drop=True).copy()
    table['nsdId'] = ids
    table['flagged'] = False
    table['BOLD5000'] = False
    table['shared1000'] = np.isin(ids, design.sharedix - 1)
    presentations = []
    for subject in range(8):
        reps = np.zeros((design.num_stimuli, 3), int)
        if subject < len(design.subjectim):
            trials = design.trial_ids(subject)
            order = np.argsort(trials, kind='stable').reshape(-1, 3)  # each image three times, in time order
            reps[trials[order[:, 0]]] = order + 1
        table[f'subject{subject + 1}'] = (reps[:, 0] > 0).astype(int)
        presentations.append(reps)
    for subject, reps in enumerate(presentations):
        for repeat in range(3):
            table[f'subject{subject + 1}_rep{repeat}'] = reps[:, repeat]
    return table


def behaviour_table(design: Design, subject_index: int, sessions: int) -> pd.DataFrame:
    """Make the table of ``responses.tsv``: what was shown when, without the subject's answers."""
    trials = sessions * TRIALS_PER_SESSION
    order = design.masterordering[:trials]
    session = np.arange(trials) // TRIALS_PER_SESSION + 1
    runs, slots = np.nonzero(design.stimpattern.reshape(-1, 75)[: sessions * RUNS_PER_SESSION])
    return pd.DataFrame(
        {
            'SUBJECT': subject_index + 1,
            'SESSION': session,
            'RUN': runs % RUNS_PER_SESSION + 1,
            'TRIAL': np.concatenate([np.arange(n) + 1 for n in np.bincount(runs)]),
            '73KID': design.trial_ids(subject_index)[:trials] + 1,
            '10KID': order,
            'TIME': 737000 + 7 * session + (runs % RUNS_PER_SESSION * 300 + slots * 4) / 86400,
            'ISOLD': pd.Series(order).duplicated().astype(int),
        }
    )
