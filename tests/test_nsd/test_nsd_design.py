"""The design: what the real file says, against slow loops and NSD's own figures, and what is said of wrong files."""

import numpy as np
import pandas as pd
import pytest
import scipy.io

from mmnfn.nsd.design import check_responses, read_design

ALL = (40, 40, 32, 30, 40, 32, 40, 30)
"""Sessions of subjects 1 to 8."""
BEFORE_2023 = (37, 37, 29, 27, 37, 29, 37, 27)
"""Without the last three of each."""
DISTINCT = {
    ALL: (10000, 10000, 9411, 9209, 10000, 9411, 10000, 9209),
    BEFORE_2023: (9841, 9841, 9082, 8779, 9841, 9082, 9841, 8779),
}
SHARED = {
    ALL: (1000, 1000, 930, 907, 1000, 930, 1000, 907),
    BEFORE_2023: (982, 982, 894, 872, 982, 894, 982, 872),
}
SHARED_THRICE = {
    ALL: (1000, 1000, 614, 515, 1000, 614, 1000, 515),
    BEFORE_2023: (839, 839, 481, 413, 839, 481, 839, 413),
}
THRICE = {
    ALL: (10000, 10000, 6234, 5445, 10000, 6234, 10000, 5445),
    BEFORE_2023: (8420, 8420, 5081, 4424, 8420, 5081, 8420, 4424),
}
SEEN_BY_ALL = {ALL: 515, BEFORE_2023: 413}


@pytest.fixture(scope='module')
def design(real_data):
    return read_design(real_data / 'nsd/nsd_expdesign.mat')


@pytest.mark.parametrize('sessions', [ALL, BEFORE_2023], ids=['all sessions', 'before 2023'])
def test_counts_of_the_real_design(design, sessions):
    assert len(design.subjects) == 8 and design.shared == 1000
    by_subject = dict(zip(design.subjects, sessions))
    for position, (subject, count) in enumerate(by_subject.items()):
        ids, shared = design.trials(subject, count)
        presentations = design.presentations(count)
        assert len(ids) == len(shared) == 750 * count
        assert len(np.unique(ids)) == (presentations > 0).sum() == DISTINCT[sessions][position]
        assert len(np.unique(ids[shared])) == (presentations[:1000] > 0).sum() == SHARED[sessions][position]
        assert (presentations[:1000] == 3).sum() == SHARED_THRICE[sessions][position]
        assert (presentations == 3).sum() == THRICE[sessions][position]
    assert len(design.seen_by_all(by_subject)) == SEEN_BY_ALL[sessions]


def test_the_sessions_left_out_are_all_completed_ones(design):
    assert design.full_sessions() == dict(zip(design.subjects, ALL))
    assert (design.seen_by_all({}) == design.seen_by_all(design.full_sessions())).all()
    assert len(design.seen_by_all({'subj01': 37})) == 515  # subjects 4 and 8 have 30, so that nothing is lost
    assert len(design.seen_by_all({'subj08': 27})) == 413


@pytest.mark.parametrize('sessions', [ALL, BEFORE_2023], ids=['all sessions', 'before 2023'])
def test_the_real_design_against_a_slow_loop(design, real_data, sessions):
    """Lists and dicts of the 1-based ids, as the data manual describes them."""
    mat = scipy.io.loadmat(real_data / 'nsd/nsd_expdesign.mat')
    order, own, shared = mat['masterordering'][0].tolist(), mat['subjectim'].tolist(), set(mat['sharedix'][0].tolist())
    common = set(shared)
    for position, subject in enumerate(design.subjects):
        times = {}
        for trial in order[: 750 * sessions[position]]:
            image = own[position][trial - 1]
            times[image] = times.get(image, 0) + 1
        assert len(times) == DISTINCT[sessions][position] and max(times.values()) == 3
        assert len(shared & set(times)) == SHARED[sessions][position]
        assert sum(n == 3 for n in times.values()) == THRICE[sessions][position]
        thrice = {image for image in shared & set(times) if times[image] == 3}
        assert len(thrice) == SHARED_THRICE[sessions][position]
        common &= thrice
        ids, is_shared = design.trials(subject, sessions[position])
        expected = [own[position][trial - 1] for trial in order[: 750 * sessions[position]]]
        assert (ids + 1).tolist() == expected
        assert is_shared.tolist() == [image in shared for image in expected]
    found = design.seen_by_all(dict(zip(design.subjects, sessions)))
    assert (found + 1).tolist() == sorted(common) and len(common) == SEEN_BY_ALL[sessions]


def small(**changes):
    """Two subjects with 250 images, 20 of them shared, shown three times in one session."""
    own = np.tile(np.arange(1, 251), (2, 1))
    own[1, 20:] += 230
    content = dict(masterordering=np.arange(750)[None] % 250 + 1, subjectim=own, sharedix=np.arange(1, 21)[None])
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


@pytest.fixture()
def write(tmp_path):
    def save(**changes):
        path = tmp_path / 'nsd_expdesign.mat'
        scipy.io.savemat(path, small(**changes))
        return path

    return save


def test_a_design_smaller_than_nsds(write):
    design = read_design(write())
    assert design.subjects == ('subj01', 'subj02') and design.full_sessions() == dict(subj01=1, subj02=1)
    ids, shared = design.trials('subj02', 1)
    assert ids[:3].tolist() == [0, 1, 2] and ids[249] == 479 and shared.sum() == 60
    assert (design.presentations(1) == 3).all() and design.seen_by_all({}).tolist() == list(range(20))
    assert len(design.seen_by_all({'subj02': 0})) == 0
    with pytest.raises(ValueError, match='nsd_expdesign.mat has 2 subjects, so none is subj03'):
        design.trials('subj03', 1)
    with pytest.raises(ValueError, match=r'plans 750 trials, but subj01 has 2 sessions \(1500 trials\)'):
        design.trials('subj01', 2)


def test_no_subject_has_more_sessions_than_it_completed(write):
    own = np.tile(np.arange(1, 251), (4, 1)) + np.where(np.arange(250) < 20, 0, 230 * np.arange(4)[:, None])
    for planned, expected in ((40, (40, 40, 32, 30)), (31, (31, 31, 31, 30)), (2, (2, 2, 2, 2))):
        design = read_design(write(masterordering=np.arange(750 * planned)[None] % 250 + 1, subjectim=own))
        assert tuple(design.full_sessions().values()) == expected


def test_shared_images_in_another_order(write):
    """Each subject sees its shared images 0…19 in the order of its own row; only the first ten places come thrice."""
    order = np.arange(750)[None] % 250 + 1
    order[order <= 10] = np.repeat(np.arange(1, 11), 3)
    order[0, 500:][(order[0, 500:] > 10) & (order[0, 500:] <= 20)] = 100
    own = small()['subjectim']
    own[1, :20] = np.roll(own[1, :20], 4)
    design = read_design(write(masterordering=order, subjectim=own))
    assert (design.presentations(1)[:20] == 3).tolist() == [True] * 10 + [False] * 10
    assert design.seen_by_all({}).tolist() == [0, 1, 2, 3, 4, 5]


OWN = small()['subjectim']


@pytest.mark.parametrize(
    'changes, named',
    [
        (dict(masterordering=None), 'it has no masterordering'),
        (dict(sharedix=None), 'it has no sharedix'),
        (dict(subjectim='text'), 'cannot be read'),
        (dict(masterordering=np.arange(1, 750)[None] % 250 + 1), 'masterordering 749 entries; .* multiple of 750'),
        (dict(masterordering=np.zeros((1, 0))), 'masterordering 0 entries'),
        (dict(subjectim=np.tile(OWN, (5, 1))), r'subjectim has shape \(10, 250\)'),
        (dict(subjectim=OWN[None]), r'subjectim has shape \(1, 2, 250\)'),
        (dict(masterordering=small()['masterordering'] - 1), 'masterordering 0…249 for 250 images'),
        (dict(masterordering=small()['masterordering'] + 1), 'masterordering 2…251 for 250 images'),
        (dict(subjectim=OWN - 1), 'subjectim 0…479 for 73000 stimuli'),
        (dict(subjectim=OWN + 73000 - 479), 'subjectim 72522…73001 for 73000 stimuli'),
        (dict(sharedix=np.arange(2, 22)[None]), 'first 20 images of subjectim are not those of sharedix'),
        (dict(subjectim=np.where(np.arange(250) == 249, 30, OWN)), 'names an image twice'),
    ],
)
def test_wrong_designs_are_named(write, changes, named):
    path = write(**changes)
    with pytest.raises(ValueError, match=named) as error:
        read_design(path)
    assert str(path) in str(error.value) and 'Download it again' in str(error.value)


def test_missing_and_damaged_designs(write, tmp_path):
    with pytest.raises(FileNotFoundError, match='design file is missing: .*none.mat'):
        read_design(tmp_path / 'none.mat')
    path = write()
    content = path.read_bytes()
    for part in (b'', b'nothing', content[:200], content[:-500]):
        path.write_bytes(part)
        with pytest.raises(ValueError, match='nsd_expdesign.mat cannot be read as the NSD design'):
            read_design(path)


IDS = np.arange(1500) % 700


@pytest.fixture()
def responses(tmp_path):
    def save(ids, column='73KID'):
        path = tmp_path / 'responses.tsv'
        pd.DataFrame({'SUBJECT': 1, column: ids, 'TIME': 0.5}).to_csv(path, sep='\t', index=False)
        return path

    return save


def test_responses_that_agree(responses, tmp_path):
    check_responses(tmp_path / 'none.tsv', IDS)  # a missing table is legal
    check_responses(responses(IDS + 1), IDS)
    check_responses(responses(IDS + 1), IDS[:750])  # fewer sessions of betas


def test_responses_that_do_not_agree(responses):
    ids = IDS + 1
    ids[[760, 1400]] = 5000
    with pytest.raises(ValueError, match=r'trial 11 of session 2 shows 73KID 5000, but the design file says 61 \(both'):
        check_responses(responses(ids), IDS)
    check_responses(responses(ids), IDS[:750])
    with pytest.raises(ValueError, match='trial 1 of session 1 shows 73KID 0, but the design file says 1'):
        check_responses(responses(IDS), IDS)  # 0-based


def test_responses_that_are_short_or_damaged(responses):
    path = responses(IDS[:1499] + 1)
    with pytest.raises(ValueError, match=r'1499 trials, but there are betas of 1500.*first 1 session\(s\)'):
        check_responses(path, IDS)
    for content in (b'', b'nothing', bytes(range(256)) * 4):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='responses.tsv cannot be read as the table of trials'):
            check_responses(path, IDS)
    with pytest.raises(ValueError, match='responses.tsv cannot be read as the table of trials.*73KID'):
        check_responses(responses(IDS + 1, 'nsdId'), IDS)
    with pytest.raises(ValueError, match='responses.tsv cannot be read as the table of trials'):
        check_responses(responses(['image'] * 1500), IDS)
