"""Positions of the vertices of FreeSurfer's average brain."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np

from .gifti import read_points

FARTHEST = 500
"""mm from the origin; a head is smaller."""
MAX_BYTES = 1 << 26
SIDES = {'lh': 'left', 'rh': 'right'}
REMEDY = (
    'Give a folder with lh.white and rh.white (nsddata/freesurfer/fsaverage/surf of the NSD release, or of any '
    'FreeSurfer installation), or with white_left.gii.gz and white_right.gii.gz (nilearn: '
    "datasets.fetch_surf_fsaverage('fsaverage7'))."
)


class Surface(NamedTuple):
    """The white surface of a hemisphere.

    Attributes:
        path: The file.
        coordinates: (vertices, 3) float32, mm.
    """

    path: Path
    coordinates: np.ndarray


def read_white_surface(folder: Optional[Union[str, Path]], hemisphere: str) -> Surface:
    """Read the white surface of ``'lh'`` or ``'rh'``, as FreeSurfer or as nilearn stores it.

    Args:
        folder: Folder of the surfaces; FreeSurfer's may also be in its ``surf/``.
        hemisphere: ``'lh'`` or ``'rh'``.

    Raises:
        FileNotFoundError: If there is no such file; says both ways to get it.
        ValueError: If it is no surface.
    """
    if folder is None:
        raise FileNotFoundError(f'fsaverage surfaces are missing: --fsaverage is not given. {REMEDY}')
    folder = Path(folder)
    names = [f'{hemisphere}.white', f'surf/{hemisphere}.white']
    names += [f'white_{SIDES[hemisphere]}.gii', f'white_{SIDES[hemisphere]}.gii.gz']
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f'fsaverage surface is missing: {folder} has none of {", ".join(names)}. {REMEDY}')
    path = found[0]
    try:
        if path.suffix == '.white':
            coordinates = _read_triangles(path.read_bytes())
        else:
            with gzip.open(path, 'rb') if path.suffix == '.gz' else path.open('rb') as stream:
                content = stream.read(MAX_BYTES)
                if stream.read(1):
                    raise ValueError(f'it has more than {MAX_BYTES} bytes')
            coordinates = read_points(content)
    except Exception as error:  # a damaged file raises several kinds
        raise ValueError(f'{path} cannot be read as a surface: {error}. {REMEDY}') from error
    if not (np.abs(coordinates) < FARTHEST).all():
        raise ValueError(f'{path} has a vertex that is not within {FARTHEST} mm, or nowhere. {REMEDY}')
    return Surface(path, coordinates)


def _read_triangles(data: bytes) -> np.ndarray:
    """(vertices, 3) float32 of a FreeSurfer surface of triangles; ValueError or struct.error for anything else."""
    start = data.index(b'\n\n', 3, 1000) + 2  # after a line of text and an empty one
    vertices, faces = struct.unpack_from('>ii', data, start)
    if data[:3] != b'\xff\xff\xfe' or vertices < 1 or faces < 0 or start + 8 + 12 * (vertices + faces) > len(data):
        raise ValueError(f'it has {vertices} vertices and {faces} faces in {len(data)} bytes')
    corners = np.frombuffer(data, '>i4', 3 * faces, start + 8 + 12 * vertices)
    if faces and not 0 <= corners.min() <= corners.max() < vertices:
        raise ValueError(f'a face has a corner at vertex {corners.max()} of {vertices}')
    return np.frombuffer(data, '>f4', 3 * vertices, start + 8).reshape(-1, 3).astype(np.float32)
