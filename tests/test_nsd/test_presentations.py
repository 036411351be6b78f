"""Which images every subject saw three times depends on the sessions that are used, and on no other subject's files."""

import shutil

from nsd_tree import CLASSES, difference, slow_store, write_tree

from mmnfn.nsd import ROIStore
from mmnfn.nsd.preparation import prepare_subject


def test_the_first_sessions(tmp_path):
    """What was seen the third time in a later session is not yet seen by all."""
    layout, seen = write_tree(tmp_path / 'nsd', sessions=(2, 2)), []
    for sessions in (1, 2):
        folder = tmp_path / f'{sessions}'
        path = prepare_subject(layout, folder, 'subj01', CLASSES, max_sessions=sessions, progress=False)
        slow = slow_store(layout.root, 'subj01', sessions=sessions)
        assert difference(path, slow) == ''
        seen.append(int(slow['seen_by_all'].sum()))
    assert 0 < seen[0] < seen[1]


def test_a_download_of_another_subject_changes_nothing(tmp_path):
    layout, found = write_tree(tmp_path / 'nsd', sessions=(2, 2)), []
    for left in (2, 1, 0):
        for session in range(left + 1, 3):
            layout.beta_file('subj02', session).unlink(missing_ok=True)
        path = prepare_subject(layout, tmp_path / f'{left}', 'subj01', CLASSES, progress=False)
        found.append(ROIStore(path).seen_by_all.tolist())
        if left == 1:
            shutil.rmtree(layout.beta_dir('subj02'))
    assert found[0] == found[1] == found[2] and any(found[0])
