"""Dictionaries that ``np.save`` has pickled, read without executing anything."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO, Dict, Tuple, Union

import numpy as np

from .files import existing

ALLOWED = {
    ('numpy.core.multiarray', '_reconstruct'),
    ('numpy._core.multiarray', '_reconstruct'),  # from NumPy 2
    ('numpy', 'ndarray'),
    ('numpy', 'dtype'),
}
"""What the pickle of an array of plain Python objects names."""


class _ArrayUnpickler(pickle.Unpickler):
    """Refuses everything that the pickle of an array does not name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what an allowed name stands for."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f'it asks for {module}.{name}, which a dictionary of plain objects does not need'
            )
        return super().find_class(module, name)


def load_pickled_dict(path: Union[str, Path], what: str) -> Dict:
    """The dictionary in a ``.npy`` file that ``np.save(path, dictionary)`` wrote.

    ``np.load(path, allow_pickle=True)`` would run whatever a file asks for; here a file that asks for anything but
    an array of plain Python objects is refused.

    Args:
        path: The file.
        what: What it is, for the errors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else.
    """
    path = existing(Path(path), what, 'Download it again.')
    try:
        with path.open('rb') as file:
            shape, dtype = _read_header(file)
            if shape != () or dtype != np.dtype(object):
                raise ValueError(f'it holds an array of {dtype}, shape {shape}, and no dictionary')
            array = _ArrayUnpickler(file).load()
        content = array.item()
        if not isinstance(content, dict):
            raise ValueError('it holds something else than one dictionary')
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f'{path} ({what}) is refused: {error}. Download it again from its source.') from error
    return content


def _read_header(file: BinaryIO) -> Tuple[Tuple[int, ...], np.dtype]:
    """Shape and dtype of a ``.npy`` file, which is then positioned at its data."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f'it has version {version} of the npy format')
    shape, _, dtype = readers[version](file, max_header_size=500)  # it is a Python expression, here a short one
    return shape, dtype
