"""The points of a surface in a GIFTI file, and nothing else of it.

nibabel's reader also follows names of other files, expands entities and unpacks whatever is there.
"""

from __future__ import annotations

import base64
import zlib
from typing import Dict, List, Optional
from xml.parsers import expat

import numpy as np

MAX_POINTS = 1 << 20
"""fsaverage has 163,842."""
ENCODINGS = ('Base64Binary', 'GZipBase64Binary', 'ASCII')


def read_points(data: bytes) -> np.ndarray:
    """(points, 3) float32 of a file's only point set.

    Raises:
        ValueError: It is no GIFTI file, or its points are in another form than any program writes them in.
        expat.ExpatError, zlib.error: It is damaged.
    """
    sets: List[Dict[str, str]] = []
    texts: List[List[str]] = []
    open_text: List[Optional[List[str]]] = [None]

    def refuse(*_: object) -> None:
        raise ValueError('it declares entities, which no surface needs')

    def start(name: str, attributes: Dict[str, str]) -> None:
        if name == 'DataArray' and attributes.get('Intent') == 'NIFTI_INTENT_POINTSET':
            sets.append(attributes)
        elif name == 'Data' and len(texts) < len(sets):
            texts.append([])
            open_text[0] = texts[-1]

    def end(name: str) -> None:
        if name == 'Data':
            open_text[0] = None

    def characters(text: str) -> None:
        if open_text[0] is not None:
            open_text[0].append(text)

    parser = expat.ParserCreate()
    parser.EntityDeclHandler, parser.StartElementHandler = refuse, start
    parser.EndElementHandler, parser.CharacterDataHandler = end, characters
    parser.Parse(data, True)
    if len(sets) != 1 or len(texts) != 1:
        raise ValueError(f'it has {len(sets)} sets of points')
    return _values(sets[0], ''.join(texts[0]))


def _values(said: Dict[str, str], text: str) -> np.ndarray:
    """The values of a data array, of which its attributes say the form."""
    points, encoding = int(said.get('Dim0', '0')), said.get('Encoding')
    form = said.get('DataType'), said.get('Dimensionality'), said.get('Dim1')
    if form != ('NIFTI_TYPE_FLOAT32', '2', '3') or not 0 < points <= MAX_POINTS or encoding not in ENCODINGS:
        raise ValueError(f'its points are {points} × {form} as {encoding}')
    if encoding == 'ASCII':
        values = np.asarray(text.split(), np.float32)
    else:
        packed, size = base64.b64decode(''.join(text.split()), validate=True), 12 * points
        if encoding == 'GZipBase64Binary':
            unpacker = zlib.decompressobj()
            packed = unpacker.decompress(packed, size + 1)
            if not unpacker.eof:  # only then its checksum was compared
                raise ValueError('its points are cut off, or more than it says')
        values = np.frombuffer(packed, '<f4' if said.get('Endian') == 'LittleEndian' else '>f4')
    if len(values) != 3 * points:
        raise ValueError(f'it has {len(values)} values instead of {points} × 3')
    order = 'F' if said.get('ArrayIndexingOrder') == 'ColumnMajorOrder' else 'C'
    return values.reshape(points, 3, order=order).astype(np.float32)
