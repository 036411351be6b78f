"""The design against slow loops and NSD's own numbers; sessions and files of the release."""

import numpy as np
import pytest
import scipy.io
from nsd_damage import put, volume
from nsd_tree import to_nifti

from mmnfn.nsd import NSDLayout
from mmnfn.nsd.design import check_responses, read_design
from mmnfn.nsd.release import FULL_SESSIONS

ALL = (40, 40, 32, 30, 40, 32, 40, 30)
"""Sessions of subjects 1 to 8, by the NSD data manual."""
BEFORE_2023 = (37, 37, 29, 27, 37, 29, 37, 27)
"""Without the last three of each."""
COUNTS = {
    ALL: dict(
        distinct=(10000, 10000, 9411, 9209, 10000, 9411, 10000, 9209),
        shared=(1000, 1000, 930, 907, 1000, 930, 1000, 907),
        shared_thrice=(1000, 1000, 614, 515, 1000, 614, 1000, 515),
        thrice=(10000, 10000, 6234, 5445, 10000, 6234, 10000, 5445),
        seen_by_all=515,
    ),
    BEFORE_2023: dict(
        distinct=(9841, 9841, 9082, 8779, 9841, 9082, 9841, 8779),
        shared=(982, 982, 894, 872, 982, 894, 982, 872),
        shared_thrice=(839, 839, 481, 413, 839, 481, 839, 413),
        thrice=(8420, 8420, 5081, 4424, 8420, 5081, 8420, 4424),
        seen_by_all=413,
    ),
}


@pytest.mark.parametrize('sessions', COUNTS, ids=['all sessions', 'before 2023'])
def test_the_real_design_is_that_of_a_slow_loop(real_data, sessions):
    """Lists and dicts of the 1-based ids, as the data manual describes them; and its numbers."""
    path = real_data / 'nsd/nsd_expdesign.mat'
    design, mat, counts = read_design(path), scipy.io.loadmat(path), COUNTS[sessions]
    order, own, shared = mat['masterordering'][0].tolist(), mat['subjectim'].tolist(), set(mat['sharedix'][0].tolist())
    common = set(shared)
    for position, subject in enumerate(design.subjects):
        times, expected = {}, [own[position][trial - 1] for trial in order[: 750 * sessions[position]]]
        for image in expected:
            times[image] = times.get(image, 0) + 1
        assert len(times) == counts['distinct'][position] and max(times.values()) == 3
        assert len(shared & set(times)) == counts['shared'][position]
        assert sum(n == 3 for n in times.values()) == counts['thrice'][position]
        thrice = {image for image in shared & set(times) if times[image] == 3}
        assert len(thrice) == counts['shared_thrice'][position]
        common &= thrice
        ids, is_shared = design.trials(subject, sessions[position])
        assert (ids + 1).tolist() == expected
        assert is_shared.tolist() == [image in shared for image in expected]
        presentations = design.presentations(sessions[position])
        assert presentations.tolist() == [times.get(image, 0) for image in own[position]]
    found = design.seen_by_all(dict(zip(design.subjects, sessions)))
    assert (found + 1).tolist() == sorted(common) and len(common) == counts['seen_by_all']


def test_subjects_count_with_all_completed_sessions_unless_said_otherwise(real_data):
    design = read_design(real_data / 'nsd/nsd_expdesign.mat')
    assert design.full_sessions() == FULL_SESSIONS == dict(zip(design.subjects, ALL))
    assert len(design.seen_by_all({})) == len(design.seen_by_all({'subj01': 37})) == 515
    assert len(design.seen_by_all({'subj08': 27})) == 413
    assert design.trials('subj01', 40)[0][0] == 46002 and np.flatnonzero(design.trials('subj01', 40)[1])[1] == 28


def test_shared_images_may_be_in_another_order_for_each_subject(tmp_path):
    """Subject 2 sees its shared images 0…19 in another order; only the first ten places come three times."""
    order = np.arange(750)[None] % 250 + 1
    order[order <= 10] = np.repeat(np.arange(1, 11), 3)
    order[0, 500:][(order[0, 500:] > 10) & (order[0, 500:] <= 20)] = 100
    own = np.tile(np.arange(1, 251), (2, 1))
    own[1] = np.r_[np.roll(own[1, :20], 4), own[1, 20:] + 230]
    content = dict(masterordering=order, subjectim=own, sharedix=np.arange(1, 21)[None])
    scipy.io.savemat(tmp_path / 'nsd_expdesign.mat', content)
    design = read_design(tmp_path / 'nsd_expdesign.mat')
    assert design.full_sessions() == dict(subj01=1, subj02=1)
    assert (design.presentations(1)[:20] == 3).tolist() == [True] * 10 + [False] * 10
    assert design.seen_by_all({}).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match='nsd_expdesign.mat has 2 subjects, so none is subj03'):
        design.trials('subj03', 1)


def test_a_table_of_trials_may_go_on_but_not_end_early(tree):
    path, ids = tree.responses_file('subj01'), read_design(tree.design_file).trials('subj01', 3)[0]
    check_responses(path, ids)
    check_responses(path, ids[:750])
    path.write_text(''.join(path.read_text().splitlines(True)[:1600]))
    with pytest.raises(ValueError, match=r'1599 trials, but there are betas of 2250.*first 2 session\(s\)'):
        check_responses(path, ids)


@pytest.fixture()
def layout(tmp_path):
    (tmp_path / 'nsddata').mkdir()
    return NSDLayout(tmp_path)


def touch(layout, subject, sessions):
    layout.beta_dir(subject).mkdir(parents=True, exist_ok=True)
    for session in sessions:
        layout.beta_file(subject, session).touch()


@pytest.mark.parametrize('subject', ['subj01', 'subj06', 'subj08'])
def test_all_sessions_are_legal_and_one_more_is_not(layout, subject):
    count = FULL_SESSIONS[subject]
    touch(layout, subject, range(1, count + 1))
    assert layout.sessions(subject) == list(range(1, count + 1))
    touch(layout, subject, [count + 1])
    with pytest.raises(ValueError, match=f'has session {count + 1}, but {subject} has sessions 1 to {count}'):
        layout.sessions(subject)


def test_a_gap_matters_to_those_who_use_what_follows(layout):
    """A download in progress may have one."""
    touch(layout, 'subj03', [2, 3])
    with pytest.raises(ValueError, match=r'lacks session\(s\) 1 although it has session 3. Download what is missing.$'):
        layout.sessions('subj03', 1)
    touch(layout, 'subj03', [1, 5, 6])
    for wanted in (None, 4, 5):
        with pytest.raises(ValueError, match=r'session\(s\) 4 although it has session 6.*first 3: --max-sessions'):
            layout.sessions('subj03', wanted)
    assert layout.sessions('subj03', 3) == [1, 2, 3]


def test_a_session_in_both_formats_is_one(tree):
    to_nifti(tree, 'subj01')
    tree.beta_file('subj01', 2).touch()
    assert tree.sessions('subj01') == [1, 2, 3]
    assert [tree.session_file('subj01', k).suffix for k in (1, 2, 3)] == ['.gz', '.hdf5', '.gz']


def test_any_other_roi_file_can_be_read_without_a_table(tree):
    assert set(np.unique(tree.roi('subj02', 'nsdgeneral')[0])) == {-1, 0, 1}
    path = volume(tree.roi_file('subj02', 'nsdgeneral'), lambda values: put(values, (1, 1, 1), -2))
    with pytest.raises(ValueError, match=f'{path.name} holds values other than the labels'):
        tree.roi('subj02', 'nsdgeneral')
