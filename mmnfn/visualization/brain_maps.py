"""Voxel maps on slices of the brain, by nilearn."""

from __future__ import annotations

from pathlib import Path
from typing import List, Mapping, Optional, Union

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from mmnfn.nsd.release import read_volume
from mmnfn.utils import atomic_write


def draw_brain_maps(
    path: Union[str, Path],
    maps: Mapping[str, Union[str, Path]],
    background: Union[str, Path, None] = None,
    slices: int = 7,
    vmax: Optional[float] = None,
    threshold: Optional[float] = None,
) -> None:
    """Write a picture with a row of axial slices for each map, all on one scale.

    The slices are those between the 10th and the 90th percentile of the voxels that have a value.

    Args:
        path: File to write, of any format that Matplotlib knows.
        maps: Heading → NIfTI volume, e.g. ``subj08_pcc.nii.gz`` of :class:`mmnfn.evaluation.EncodingMetric`; NaN is no
            value. All of one subject.
        background: NIfTI volume in the same space, e.g. NSD's ``T1_to_func1pt8mm.nii.gz``; None for none.
        slices: Number of slices.
        vmax: End of the colour scale; None for the 99th percentile of all maps.
        threshold: Smaller absolute values are not drawn.

    Raises:
        ImportError: nilearn is not installed.
        FileNotFoundError: There is no such volume.
        ValueError: A file is no NIfTI volume, or its map is empty, or the volumes differ in shape or place.
    """
    try:
        from nilearn import plotting
    except ImportError as error:
        raise ImportError(f'Brain maps need nilearn ({error}). Install it: pip install nilearn.') from error
    if slices < 1:
        raise ValueError(f'slices is {slices}; it must be at least 1.')
    volumes = {name: _volume(file) for name, file in maps.items()}
    first = next(iter(volumes.values()))
    behind = _volume(background) if background is not None else None
    for file, volume in zip([*maps.values(), background], [*volumes.values(), behind]):
        if volume is not None and not (volume.shape == first.shape and np.allclose(volume.affine, first.affine)):
            raise ValueError(
                f'{file} has shape {volume.shape} and another place than {next(iter(maps.values()))} {first.shape}; '
                'give volumes of one subject and one space.'
            )
    values = [np.asarray(volume.dataobj, np.float32) for volume in volumes.values()]
    for file, array in zip(maps.values(), values):
        if not np.isfinite(array).any():
            raise ValueError(f'{file} has no value that is a number.')
    known = np.concatenate([array[np.isfinite(array)] for array in values])
    limit = vmax or float(np.percentile(np.abs(known), 99)) or 1.0
    places = _slices(values, first.affine, slices)
    figure = Figure(figsize=(1.5 * slices + 1, 1.9 * len(maps) + 0.3))
    for row, (name, volume) in enumerate(volumes.items()):
        shown = nib.Nifti1Image(np.nan_to_num(values[row]), volume.affine)
        figure.text(0.01, 1 - (row + 0.02) / len(maps), name, va='top', weight='bold')
        axes = figure.add_axes((0, 1 - (row + 1) / len(maps), 1, 0.84 / len(maps)))
        axes.set_axis_off()
        plotting.plot_stat_map(
            shown,
            bg_img=behind,
            display_mode='z',
            cut_coords=places,
            figure=figure,
            axes=axes,
            vmax=limit,
            vmin=-limit,
            threshold=1e-6 if threshold is None else threshold,
            cmap='RdBu_r',
            black_bg=False,
        )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format=Path(path).suffix[1:] or 'png', facecolor='white')


def _volume(path: Union[str, Path]) -> nib.Nifti1Image:
    """A NIfTI volume."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'maps: there is no file {str(path)!r}.')
    try:
        values, affine = read_volume(Path(path), 'map')
        return nib.Nifti1Image(values.astype(np.float32), affine)  # nibabel makes none of int64
    except ValueError as error:
        raise ValueError(f'maps: {path} is no NIfTI volume: {error}') from error


def _slices(arrays: List[np.ndarray], affine: np.ndarray, number: int) -> List[float]:
    """z coordinates in mm of slices through the voxels that have a value."""
    where = np.argwhere(np.any([np.isfinite(array) for array in arrays], axis=0))
    z = (np.c_[where, np.ones(len(where))] @ affine.T)[:, 2]
    return [float(place) for place in np.linspace(*np.percentile(z, (10, 90)), number)]
