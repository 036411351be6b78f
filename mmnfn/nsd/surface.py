"""Read where the vertices of FreeSurfer's average brain lie."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple, Union

import nibabel as nib
import numpy as np

REMEDY = (
    'Give a folder with lh.white and rh.white (nsddata/freesurfer/fsaverage/surf of the NSD release, or of any '
    'FreeSurfer installation), or with white_left.gii.gz and white_right.gii.gz (nilearn: '
    "datasets.fetch_surf_fsaverage('fsaverage7'))."
)


def read_white_surface(folder: Optional[Union[str, Path]], hemisphere: str) -> Tuple[Path, np.ndarray]:
    """Read the white surface of a hemisphere, as FreeSurfer or as nilearn stores it.

    Args:
        folder: Folder of the surfaces; FreeSurfer's may also be in its ``surf/``.
        hemisphere: ``'lh'`` or ``'rh'``.

    Returns:
        The file, and the (vertices, 3) float32 coordinates in mm.

    Raises:
        FileNotFoundError: If there is no such file; the message says where to get one.
        ValueError: If it is no surface.
    """
    if folder is None:
        raise FileNotFoundError(f'fsaverage surfaces are missing: --fsaverage is not given. {REMEDY}')
    stem = {'lh': 'white_left', 'rh': 'white_right'}[hemisphere]
    names = [f'{hemisphere}.white', f'surf/{hemisphere}.white', f'{stem}.gii', f'{stem}.gii.gz']
    path = next((Path(folder) / name for name in names if (Path(folder) / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f'fsaverage surface is missing: {folder} has none of {", ".join(names)}. {REMEDY}')
    try:
        if path.suffix == '.white':
            coordinates = nib.freesurfer.read_geometry(path)[0]
        else:
            coordinates = nib.load(path).agg_data('pointset')
        return path, coordinates.reshape(-1, 3).astype(np.float32)
    except Exception as error:  # nibabel raises many kinds for a damaged file
        raise ValueError(f'{path} cannot be read as a surface: {error}. {REMEDY}') from error
