"""Which images every subject saw three times depends on the sessions that are used of all of them."""

from nsd_tree import CLASSES, difference, slow_store, write_tree

from mmnfn.datasets.preparation import prepare_subject


def test_the_first_sessions_of_all_subjects(tmp_path):
    """Fewer sessions than any subject has: an image that others saw in later ones is not seen by all."""
    layout, seen = write_tree(tmp_path / 'nsd', sessions=(2, 2)), []
    for sessions in (1, 2):
        folder = tmp_path / f'{sessions}'
        path = prepare_subject(layout, folder, 'subj01', CLASSES, max_sessions=sessions, progress=False)
        slow = slow_store(layout.root, 'subj01', sessions=sessions)
        assert difference(path, slow) == ''
        seen.append(int(slow['seen_by_all'].sum()))
    assert 0 < seen[0] < seen[1]
