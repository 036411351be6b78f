"""A tiny release tree."""

import shutil

import pytest
from nsd_damage import Files
from nsd_tree import write_tree


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """A release tree of a few dozen voxels: subj01 with 3 sessions, subj02 with 1. Leave it as it is."""
    return Files(write_tree(tmp_path_factory.mktemp('tiny') / 'nsd').root)


@pytest.fixture()
def tree(tiny, tmp_path):
    """A copy of the tree that a test may damage."""
    return Files(shutil.copytree(tiny.root, tmp_path / 'nsd'))
