"""What the release tree holds: sessions, labels and subjects."""

import pytest
from nsd_damage import put, volume
from nsd_tree import to_nifti

from mmnfn.nsd import NSDLayout
from mmnfn.nsd.release import FULL_SESSIONS, SUBJECT_SHAPES

SESSIONS = dict(subj01=40, subj02=40, subj03=32, subj04=30, subj05=40, subj06=32, subj07=40, subj08=30)
"""Of the NSD data manual."""


@pytest.fixture()
def layout(tmp_path):
    (tmp_path / 'nsddata').mkdir()
    return NSDLayout(tmp_path)


def touch(layout, subject, sessions):
    layout.beta_dir(subject).mkdir(parents=True, exist_ok=True)
    for session in sessions:
        layout.beta_file(subject, session).touch()


def test_sessions_that_the_subjects_completed():
    assert FULL_SESSIONS == SESSIONS and list(SUBJECT_SHAPES) == list(SESSIONS)


@pytest.mark.parametrize('subject', ['subj01', 'subj06', 'subj08'])
def test_all_sessions_are_legal_and_one_more_is_not(layout, subject):
    count = SESSIONS[subject]
    touch(layout, subject, range(1, count + 1))
    assert layout.sessions(subject) == list(range(1, count + 1))
    touch(layout, subject, [count + 1])
    with pytest.raises(ValueError, match=f'has session {count + 1}, but {subject} has sessions 1 to {count}'):
        layout.sessions(subject)


def test_a_gap_matters_to_those_who_use_what_follows(layout):
    """A download that is going on may have one."""
    touch(layout, 'subj03', [2, 3])
    with pytest.raises(ValueError, match=r'lacks session\(s\) 1 although it has session 3. Download what is missing.$'):
        layout.sessions('subj03', 1)
    touch(layout, 'subj03', [1, 5, 6])
    for wanted in (None, 4, 5):
        with pytest.raises(ValueError, match=r'session\(s\) 4 although it has session 6.*first 3: --max-sessions'):
            layout.sessions('subj03', wanted)
    assert layout.sessions('subj03', 3) == [1, 2, 3] and layout.sessions('subj03', 1) == [1]


def test_a_session_in_both_formats_is_one(tiny, tree):
    to_nifti(tree, 'subj01')
    tree.beta_file('subj01', 2).touch()
    assert tree.sessions('subj01') == tiny.sessions('subj01') == [1, 2, 3]
    assert [tree.session_file('subj01', k).suffix for k in (1, 2, 3)] == ['.gz', '.hdf5', '.gz']


def test_labels_below_no_cortex_are_refused_where_no_table_is(tree):
    assert tree.roi('subj02', 'nsdgeneral')[0].min() == -1
    path = volume(tree.roi_of('nsdgeneral'), lambda values: put(values, (1, 1, 1), -2))
    with pytest.raises(ValueError, match=f'{path.name} holds values that are no labels'):
        tree.roi('subj02', 'nsdgeneral')
