"""The simulated experiment follows the rules of NSD."""

import numpy as np
import pandas as pd
import pytest
import scipy.io

from mmnfn.simulation.design import behaviour_table, make_design, stimulus_table


@pytest.fixture(scope='module')
def design():
    return make_design(subjects=3, sessions=4, shared_fraction=0.1, rng=np.random.default_rng(0))


def within_session_lags(order):
    """Compute the shares of pairs of presentations within a session and in neighbouring sessions."""
    sessions = np.argsort(order, kind='stable').reshape(-1, 3) // 750
    lags = np.concatenate([sessions[:, b] - sessions[:, a] for a, b in ((0, 1), (0, 2), (1, 2))])
    return (lags == 0).mean(), (lags == 1).mean()


def test_each_image_is_shown_three_times(design):
    assert design.masterordering.shape == (3000,)
    assert (np.bincount(design.masterordering)[1:] == 3).all() and design.masterordering.min() == 1


def test_shared_images_come_first_and_are_the_same_for_all(design):
    assert design.subjectim.shape == (3, 1000) and design.sharedix.shape == (100,)
    assert (design.subjectim[:, :100] == design.sharedix).all() and (np.diff(design.sharedix) > 0).all()
    own = design.subjectim[:, 100:].ravel()
    assert len(np.unique(own)) == own.size and not np.isin(own, design.sharedix).any()
    assert design.num_stimuli == 100 + 3 * 900 == design.subjectim.max()


def test_runs_hold_63_and_62_trials_in_turn(design):
    assert (design.stimpattern.sum(2) == np.asarray([63, 62] * 6)).all()


def test_lags_are_those_of_the_real_design(real_data):
    real = scipy.io.loadmat(real_data / 'nsd/nsd_expdesign.mat')['masterordering'].ravel().astype(int)
    simulated = make_design(1, 40, 0.1, np.random.default_rng(1)).masterordering
    assert within_session_lags(simulated) == pytest.approx(within_session_lags(real), abs=0.015)


def test_tables_agree_with_the_design(design):
    source = pd.DataFrame(
        dict(cocoId=np.arange(design.num_stimuli), cocoSplit='train2017', cropBox='(0, 0, 0, 0)', loss=0.0)
    )
    table = stimulus_table(design, source)
    assert (table.nsdId == np.arange(design.num_stimuli)).all()
    for subject in range(3):
        trials = design.trial_ids(subject)
        for row in table[table[f'subject{subject + 1}'] == 1].sample(20, random_state=0).itertuples():
            reps = [getattr(row, f'subject{subject + 1}_rep{k}') for k in range(3)]
            assert reps == sorted(reps) and (trials[np.asarray(reps) - 1] == row.nsdId).all()
    assert (table.subject4 == 0).all() and table.shared1000.sum() == 100

    behaviour = behaviour_table(design, 1, 2)
    assert len(behaviour) == 1500 and (behaviour['73KID'] - 1 == design.trial_ids(1)[:1500]).all()
    seen = set()
    for image, old in zip(behaviour['10KID'], behaviour['ISOLD']):
        assert old == (image in seen)
        seen.add(image)
    assert behaviour.TRIAL.max() == 63 and behaviour.groupby(['SESSION', 'RUN']).size().isin([62, 63]).all()
