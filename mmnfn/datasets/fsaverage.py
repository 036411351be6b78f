"""Positions of the vertices of FreeSurfer's average brain."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Optional, Union

import nibabel as nib
import numpy as np

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
            coordinates = nib.freesurfer.read_geometry(path)[0]
        else:
            coordinates = nib.load(path).agg_data('NIFTI_INTENT_POINTSET')
        coordinates = np.asarray(coordinates, np.float32)
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise ValueError(f'{path} cannot be read as a surface: {error}. {REMEDY}') from error
    if coordinates.ndim != 2 or coordinates.shape[1] != 3 or not np.isfinite(coordinates).all():
        raise ValueError(f'{path} holds no vertex positions (found shape {coordinates.shape}). {REMEDY}')
    return Surface(path, coordinates)
