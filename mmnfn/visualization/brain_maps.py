"""Voxel maps on slices of the brain, by nilearn."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Optional, Union

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from mmnfn.utils import atomic_write


def draw_brain_maps(
    path: Union[str, Path],
    maps: Mapping[str, Union[str, Path]],
    background: Union[str, Path, None] = None,
    slices: int = 7,
    vmax: Optional[float] = None,
    threshold: Optional[float] = None,
) -> None:
    """Write a figure with a row of axial slices for each map, all on one colour scale.

    The slices lie between the 10th and the 90th percentile of the voxels that have a value.

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
        ValueError: A file is not a NIfTI volume, a map is empty, or the volumes differ in shape or position.
    """
    try:
        from nilearn import plotting
    except ImportError as error:
        raise ImportError(f'Brain maps need nilearn ({error}). Install it: pip install nilearn.') from error
    if slices < 1:
        raise ValueError(f'slices is {slices}; it must be at least 1.')
    files = [*maps.values()] + ([] if background is None else [background])
    volumes = [_read_volume(file) for file in files]
    first = volumes[0]
    for file, volume in zip(files, volumes):
        if volume.shape != first.shape or not np.allclose(volume.affine, first.affine):
            raise ValueError(
                f'{file} has shape {volume.shape} and another place than {files[0]} {first.shape}; give volumes of one '
                'subject and one space.'
            )
    values = [np.asarray(volume.dataobj) for volume in volumes[: len(maps)]]
    for file, array in zip(files, values):
        if not np.isfinite(array).any():
            raise ValueError(f'{file} has no value that is a number.')
    finite = np.isfinite(values)
    limit = vmax or float(np.percentile(np.abs(np.asarray(values)[finite]), 99)) or 1.0
    z = nib.affines.apply_affine(first.affine, np.argwhere(finite.any(0)))[:, 2]
    figure = Figure(figsize=(1.5 * slices + 1, 1.9 * len(maps) + 0.3))
    for row, name in enumerate(maps):
        figure.text(0.01, 1 - (row + 0.02) / len(maps), name, va='top', weight='bold')
        axes = figure.add_axes((0, 1 - (row + 1) / len(maps), 1, 0.84 / len(maps)))
        axes.set_axis_off()
        plotting.plot_stat_map(
            nib.Nifti1Image(np.nan_to_num(values[row]), first.affine),
            bg_img=None if background is None else volumes[-1],
            display_mode='z',
            cut_coords=np.linspace(*np.percentile(z, (10, 90)), slices).tolist(),
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


def _read_volume(path: Union[str, Path]) -> nib.Nifti1Image:
    """Read a NIfTI volume as float32."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'maps: there is no file {str(path)!r}.')
    try:
        image = nib.load(path)
        return nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine)
    except Exception as error:  # nibabel and gzip raise many kinds
        raise ValueError(f'maps: {path} is no NIfTI volume: {error}') from error
