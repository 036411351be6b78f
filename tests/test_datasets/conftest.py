"""A tiny release tree."""

import shutil

import h5py
import pytest
from nsd_damage import Files
from nsd_tree import write_tree

from mmnfn.datasets.hdf5 import digest, write_attributes


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """A release tree of a few dozen voxels: subj01 with 3 sessions, subj02 with 1. Leave it as it is."""
    return Files(write_tree(tmp_path_factory.mktemp('tiny') / 'nsd').root)


@pytest.fixture(scope='session')
def twins(store, tmp_path_factory):
    """Stores of two subjects who have the same voxels, saw the same pictures and responded alike."""
    folder = tmp_path_factory.mktemp('twins')
    shutil.copy(store / 'images_32.h5', folder)
    for subject in ('subj01', 'subj02'):
        path = shutil.copy(store / 'subj01.h5', folder / f'{subject}.h5')
        with h5py.File(path, 'a') as file:
            write_attributes(file, subject=subject)
            write_attributes(file, digest=digest(file))
    return folder


@pytest.fixture()
def tree(tiny, tmp_path):
    """A copy of the tree that a test may damage."""
    return Files(shutil.copytree(tiny.root, tmp_path / 'nsd'))
