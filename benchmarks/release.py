"""A full-size NSD release of one subject for benchmarks: real sizes and layout, random content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict

import numpy as np
import scipy.io
import scipy.ndimage

from mmnfn.nsd.release import ROI_LABELS, SUBJECT_SHAPES, TRIALS_PER_SESSION, NSDLayout
from mmnfn.simulation.design import make_design
from mmnfn.simulation.nsd_writer import save_volume, write_session

SUBJECT = 'subj01'
SHAPE = SUBJECT_SHAPES[SUBJECT]
VOXELS = {'nsdgeneral': 15724, 'union': 45000}
"""Voxels of nsdgeneral in subject 1, and about those of its six ROI classes together."""


def cortical_masks() -> Dict[str, np.ndarray]:
    """Make masks (X, Y, Z) of the sizes of :data:`VOXELS`, clustered like cortex.

    They are the voxels of a folded sheet, two to three voxels thick, nearest to the occipital pole.
    """
    field = scipy.ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 4)
    sheet = np.argwhere(np.abs(field) < 0.35 * field.std())
    distance = np.linalg.norm(sheet - np.asarray([SHAPE[0] / 2, 0, SHAPE[2] / 2]), axis=1)
    nearest = sheet[np.argsort(distance, kind='stable')]
    masks = {}
    for name, count in VOXELS.items():
        masks[name] = np.zeros(SHAPE, bool)
        masks[name][tuple(nearest[:count].T)] = True
    return masks


def write_release(root: Path, sessions: int, nifti: bool = False) -> NSDLayout:
    """Write the tree of one subject; all sessions are links to one file of 1.1 GB.

    Args:
        root: An empty folder.
        sessions: How many.
        nifti: Write the first session as ``.nii.gz`` too.
    """
    (root / 'nsddata').mkdir(parents=True)
    layout = NSDLayout(root)
    layout.beta_dir(SUBJECT).mkdir(parents=True)
    rng = np.random.default_rng(1)
    betas = rng.normal(0, 600, (int(np.prod(SHAPE)), TRIALS_PER_SESSION)).astype(np.int16)
    first = layout.beta_file(SUBJECT, 1)
    write_session(first, betas, SHAPE)
    for session in range(2, sessions + 1):
        os.link(first, layout.beta_file(SUBJECT, session))
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    if nifti:
        path = layout.beta_file(SUBJECT, 1, 'nii.gz')
        save_volume(path, betas.reshape(*SHAPE, -1), affine, scaled=False)
    del betas
    masks = cortical_masks()
    ranks = np.cumsum(masks['union'].ravel()).reshape(SHAPE)
    for number, (name, labels) in enumerate(ROI_LABELS.items()):
        mine = masks['union'] & (ranks % len(ROI_LABELS) == number)
        save_volume(layout.roi_file(SUBJECT, name), np.where(mine, 1.0, 0.0), affine)
        path = layout.label_file(SUBJECT, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('0 Unknown\n' + ''.join(f'{k} {label}\n' for k, label in enumerate(labels, 1)))
    save_volume(layout.beta_dir(SUBJECT) / 'ncsnr.nii.gz', np.ones(SHAPE, np.float32), affine)
    design = make_design(8, sessions, 0.1, rng)
    layout.design_file.parent.mkdir(parents=True)
    scipy.io.savemat(
        layout.design_file,
        dict(masterordering=design.masterordering[None], subjectim=design.subjectim, sharedix=design.sharedix[None]),
    )
    return layout
