"""Arrays of numbers in MATLAB's files, versions 5 to 7.

scipy's reader takes sizes from the file, follows cells in cells to the end of its stack, passes over the checksums of
what is compressed, and can end the process for a single changed byte. The design needs three matrices.
"""

from __future__ import annotations

import struct
import zlib
from math import prod
from typing import Dict, Iterator, Tuple

import numpy as np

HEAD, COMPRESSED, MATRIX = 128, 15, 14
TYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
"""Of values as they are stored, which can be smaller than those of the matrix."""
NUMBERS = range(6, 16)
"""Classes of matrices of real numbers; others are cells, structures, objects, texts and sparse matrices."""
COMPLEX = 0x800
MAX_BYTES = 1 << 26
"""Of all variables; NSD's design has some 2 MB."""


def read_matrices(data: bytes, names: Tuple[str, ...]) -> Dict[str, np.ndarray]:
    """Some matrices of a file.

    Args:
        data: The file.
        names: Of the variables.

    Returns:
        Name → matrix, in the type in which its values are stored.

    Raises:
        ValueError: It is no such file, is damaged, holds more than a design can, or lacks a matrix of that name.
        struct.error, zlib.error: It is damaged.
    """
    order = {b'IM': '<', b'MI': '>'}.get(data[HEAD - 2 : HEAD])
    if order is None:
        raise ValueError('it is no MATLAB file of version 5 to 7')
    found: Dict[str, np.ndarray] = {}
    for part in _variables(data, order):
        elements = _elements(part, order)
        kind, flags = next(elements)
        dims, name = next(elements)[1], next(elements)[1].rstrip(b'\0').decode('latin1')
        if name not in names:
            continue
        flags, shape = struct.unpack_from(f'{order}I', flags)[0], struct.unpack(f'{order}{len(dims) // 4}i', dims)
        if name in found or flags & 0xFF not in NUMBERS or flags & COMPLEX or min(shape, default=-1) < 0:
            raise ValueError(f'{name} is no matrix of real numbers, or stands in it twice')
        kind, values = next(elements)
        if kind not in TYPES or len(values) != prod(shape) * np.dtype(TYPES[kind]).itemsize:
            raise ValueError(f'{name} has shape {shape}, but {len(values)} bytes of values')
        found[name] = np.frombuffer(values, order + TYPES[kind]).reshape(shape, order='F')
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f'it has no {missing[0]}')
    return found


def _variables(data: bytes, order: str) -> Iterator[bytes]:
    """The variables, unpacked and with their checksums compared."""
    at, room = HEAD, MAX_BYTES
    while at < len(data):
        kind, size = struct.unpack_from(f'{order}II', data, at)
        part = data[at + 8 : at + 8 + size]
        at += 8 + size
        if len(part) < size or kind not in (COMPRESSED, MATRIX):
            raise ValueError(f'it ends with {len(part)} bytes of a variable of {size} and kind {kind}')
        if kind == COMPRESSED:
            packed = zlib.decompressobj()
            part = packed.decompress(part, room)
            if not packed.eof or struct.unpack_from(f'{order}II', part) != (MATRIX, len(part) - 8):
                raise ValueError(f'a variable is cut off, or the variables have more than {MAX_BYTES} bytes')
            part = part[8:]
        room -= len(part)
        if room <= 0:
            raise ValueError(f'the variables have more than {MAX_BYTES} bytes')
        yield part


def _elements(part: bytes, order: str) -> Iterator[Tuple[int, bytes]]:
    """Type and content of the parts of a variable: flags, dimensions, name, values."""
    at = 0
    while True:
        kind, size = struct.unpack_from(f'{order}II', part, at)
        small = kind >> 16  # up to four bytes stand beside their size
        kind, size, start = (kind & 0xFFFF, small, at + 4) if small else (kind, size, at + 8)
        content = part[start : start + size]
        if len(content) < size or (small and size > 4):
            raise ValueError(f'it has {len(content)} of {size} bytes')
        yield kind, content
        at += 8 if small else 8 + -(-size // 8) * 8
