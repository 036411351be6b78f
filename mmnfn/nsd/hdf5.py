"""HDF5 files of which nothing is believed that their size does not bear out."""

from __future__ import annotations

import hashlib
import json
import os
from math import prod
from typing import Any, Dict, List, Optional, Union

import h5py
import numpy as np

MAX_CHUNK = 1 << 30
"""Bytes of a chunk, which HDF5 reads whole; NSD's have 1500."""
LARGE = ('responses', 'trials/responses', 'images')
"""Data sets whose values do not count for the digest, for reading them takes seconds."""


def plain_dataset(file: h5py.File, name: str) -> Optional[h5py.Dataset]:
    """A data set that lies in the file as a whole.

    Args:
        file: The file.
        name: Of the data set.

    Returns:
        The data set; None where there is none, or a link that may lead elsewhere.

    Raises:
        ValueError: Its values are in other files, are more than the file can hold, or come in chunks larger than it.
    """
    parts = name.split('/')
    for end in range(1, len(parts) + 1):
        if not isinstance(file.get('/'.join(parts[:end]), getlink=True), h5py.HardLink):
            return None
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        return None
    if dataset.external or dataset.is_virtual:
        raise ValueError(f'data set {name!r} has its values in other files')
    size, room = prod(dataset.shape or ()) * dataset.dtype.itemsize, os.path.getsize(file.filename)
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if size and (dataset.id.get_storage_size() != size or (offset or 0) + size > room):
            raise ValueError(f'data set {name!r} has {dataset.shape} values, which is more than is there')
    elif prod(dataset.chunks) * dataset.dtype.itemsize > MAX_CHUNK or any(
        chunk > length for chunk, length in zip(dataset.chunks, dataset.maxshape) if length is not None
    ):
        raise ValueError(f'data set {name!r} {dataset.shape} has chunks {dataset.chunks}')
    return dataset


def read_table(file: h5py.File, name: str, kinds: str, *shape: Optional[int]) -> np.ndarray:
    """A small data set of a store, read whole.

    Args:
        file: The file.
        name: Of the data set.
        kinds: Kinds of types that it may have, as in ``'iu'``.
        *shape: Its shape; None for any length.

    Raises:
        ValueError: There is no such data set, or it has another type or shape.
    """
    dataset = plain_dataset(file, name)
    if dataset is None or dataset.chunks is not None:
        raise ValueError(f'it has no data set {name!r}' if dataset is None else f'data set {name!r} is in chunks')
    wrong = len(dataset.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, dataset.shape))
    if dataset.dtype.kind not in kinds or wrong:
        expected = tuple('any' if n is None else n for n in shape)
        raise ValueError(f'data set {name!r} is {dataset.dtype} {dataset.shape}, expected {kinds} {expected}')
    return dataset[()]


def digest(file: h5py.File) -> str:
    """SHA-256 of everything in a store, with the place of its large data sets instead of their values.

    HDF5 has no checksums in files that old versions can read: a changed byte can be another value, or the address of
    other values.
    """
    content: List[Any] = [_plain(file)]
    names: List[str] = []
    file.visit(names.append)
    found = hashlib.sha256()
    for name in sorted(names):
        if file.get(name, getclass=True) is h5py.Group:
            content.append([name])
            continue
        dataset = plain_dataset(file, name)
        if dataset is None:
            raise ValueError(f'it has something else than data under {name!r}')
        content.append([name, dataset.dtype.str, list(dataset.shape), _plain(dataset)])
        if name in LARGE:
            content.append([dataset.id.get_offset(), dataset.chunks])
        else:
            found.update(np.ascontiguousarray(dataset[()]).tobytes())
    found.update(json.dumps(content).encode())
    return found.hexdigest()


def _plain(item: Union[h5py.Group, h5py.Dataset]) -> List[Any]:
    """Names and values of attributes, but for those that say that the file is complete."""
    found = read_attributes(item)
    return [[name, np.asarray(found[name]).tolist()] for name in sorted(found) if name not in COMPLETION]


def write_attributes(item: Union[h5py.Group, h5py.Dataset], **values: Any) -> None:
    """Set attributes; texts get a fixed length, for HDF5 keeps others in a heap that a changed byte makes endless."""
    for name, value in values.items():
        array = np.asarray(value)
        item.attrs[name] = np.char.encode(array, 'utf-8') if array.dtype.kind == 'U' else array


def read_attributes(item: Union[h5py.Group, h5py.Dataset]) -> Dict[str, Any]:
    """What :func:`write_attributes` wrote; ValueError for what it cannot have written."""
    found = {}
    for name in item.attrs:
        kept = item.attrs.get_id(name)
        if kept.dtype.kind == 'O' or prod(kept.shape) * kept.dtype.itemsize > MAX_ATTRIBUTE:
            raise ValueError(f'attribute {name!r} is {kept.dtype} {kept.shape}')
        value = np.asarray(item.attrs[name])
        found[name] = (np.char.decode(value, 'utf-8') if value.dtype.kind == 'S' else value)[()]
    return found


COMPLETION = ('complete', 'format_version', 'digest')
"""Attributes that are written last."""
MAX_ATTRIBUTE = 1 << 16
"""Bytes; HDF5 has no room for larger ones beside a data set."""
