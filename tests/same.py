"""Comparisons to the last bit."""

import h5py
import numpy as np
import torch


def contents(path):
    """Read all datasets and attributes of an HDF5 file as values that compare bit by bit."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype.str, item.shape, item[()].tobytes())
        for key, value in item.attrs.items():
            found[f'{name}@{key}'] = repr((np.asarray(value).dtype, np.asarray(value).tolist()))

    with h5py.File(path, 'r') as file:
        visit('', file)
        file.visititems(visit)
    return found


def as_written(path):
    """Return size, inode and modification time of a file, which change whenever it is written."""
    status = path.stat()
    return status.st_size, status.st_ino, status.st_mtime_ns


def assert_same(one, two, where=''):
    """Check that two nested structures are equal in every bit, with their types and the order of their keys."""
    assert type(one) is type(two), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, dict):
        assert list(one) == list(two), where
        for key in one:
            assert_same(one[key], two[key], f'{where}/{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for k, pair in enumerate(zip(one, two)):
            assert_same(*pair, f'{where}/{k}')
    else:
        assert one == two, where
