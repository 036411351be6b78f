"""Write a simulated subject as the files of NSD."""

from __future__ import annotations

from typing import NamedTuple

import h5py
import nibabel as nib
import numpy as np

from mmnfn.nsd.noise_ceiling import estimate_ncsnr
from mmnfn.nsd.release import (
    BETA_SCALE,
    IMAGE_DEGREES,
    PRF_MAPS,
    ROI_LABELS,
    TRIALS_PER_SESSION,
    NSDLayout,
)
from mmnfn.utils import atomic_write, progress_bar

from .cortex import Anatomy
from .tuning import Tuning

HCP_LABELS = ('V1', 'MST', 'V6', 'V2', 'V3', 'V4')
"""The first of HCP_MMP1's 180. The simulated parcellation has V1 to V4, where prf-visualrois has them."""
INVALID_SHARE = 0.01
"""Share of visual voxels without data in one session."""
VESSEL_SHARE = 0.002
"""Share of visual voxels so strong that int16 saturates."""
TABLES_BYTES = 4 << 20
"""More than HDF5 needs beside the large arrays of a file."""


def save_volume(path, volume: np.ndarray, affine: np.ndarray, scaled: bool = True) -> None:
    """Write a NIfTI file without a time stamp, so that the same volume gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units('mm')
    if not scaled:
        image.header['scl_slope'] = 0
    nib.save(image, path)


def write_anatomy(layout: NSDLayout, subject: str, anatomy: Anatomy) -> None:
    """Write brain mask, ROI volumes (each hemisphere and both) and label tables."""
    folder = layout.anatomy_dir(subject)
    save_volume(folder / 'brainmask.nii.gz', anatomy.brain.astype(np.int16), anatomy.affine)
    rois = dict(anatomy.rois)
    rois['nsdgeneral'] = np.where(anatomy.hemisphere >= 0, anatomy.visual.astype(int), -1)
    early = rois['prf-visualrois']
    rois['HCP_MMP1'] = np.where(early > 0, np.asarray((0, 1, 1, 4, 4, 5, 5, 6))[early], early)
    for name, labels in rois.items():
        save_volume(layout.roi_file(subject, name), labels.astype(np.float64), anatomy.affine)
        for side, prefix in enumerate(('lh', 'rh')):
            half = np.where(anatomy.hemisphere == side, labels, -1)
            save_volume(layout.roi_file(subject, f'{prefix}.{name}'), half.astype(np.float64), anatomy.affine)
    for name, labels in {**ROI_LABELS, 'HCP_MMP1': HCP_LABELS}.items():
        path = layout.label_file(subject, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ['0 Unknown'] + [f'{k} {label}\t' for k, label in enumerate(labels, 1)]
        path.write_text('\n'.join(lines) + '\n', encoding='utf-8')


class SessionPlan(NamedTuple):
    """Hold the peculiarities of each session of a subject.

    Attributes:
        mean, std: (V,) mean and std of the betas in percent signal change.
        offset, gain: (sessions, V) drift of the mean, in stds, and of the std, as a factor.
        invalid: (sessions, V) bool, voxels without data.
    """

    mean: np.ndarray
    std: np.ndarray
    offset: np.ndarray
    gain: np.ndarray
    invalid: np.ndarray


def plan_sessions(voxels: int, sessions: int, rng: np.random.Generator) -> SessionPlan:
    """Draw drift, invalid voxels and the few voxels that saturate."""
    std = rng.lognormal(0.4, 0.3, voxels)
    vessels = rng.random(voxels) < VESSEL_SHARE
    vessels[rng.integers(voxels)] = True
    std[vessels] = rng.uniform(40, 60, vessels.sum())
    invalid = np.zeros((sessions, voxels), bool)
    for voxel in np.flatnonzero((rng.random(voxels) < INVALID_SHARE) & ~vessels):
        invalid[rng.integers(sessions), voxel] = True
    return SessionPlan(
        rng.normal(1.0, 0.5, voxels),
        std,
        rng.normal(0, 0.4, (sessions, voxels)),
        rng.uniform(0.85, 1.15, (sessions, voxels)),
        invalid,
    )


def noisy_responses(signal: np.ndarray, ncsnr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise so that the ratio of the stds of signal and noise is ``ncsnr`` and the total variance 1.

    Args:
        signal: (trials, V) z-scored noise-free responses.
        ncsnr: (V,).
        rng: Source of the noise.
    """
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    return (signal * ncsnr + noise) / np.sqrt(1 + ncsnr**2)


def to_int16(percent: np.ndarray) -> np.ndarray:
    """Convert percent signal change to int16 × 300, rounded and saturated."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(percent * BETA_SCALE), limits.min, limits.max).astype(np.int16)


def write_prf(layout: NSDLayout, subject: str, anatomy: Anatomy, tuning: Tuning) -> None:
    """Write the maps of the receptive fields, NaN outside visual cortex."""
    x, y, size = tuning.field.T  # in halves of the image's side
    maps = (np.degrees(np.arctan2(y, x)) % 360, np.hypot(x, y) * IMAGE_DEGREES / 2, size * IMAGE_DEGREES / 2)
    for name, values in zip(PRF_MAPS, maps):
        volume = np.full(anatomy.brain.shape, np.nan, np.float32)
        volume[anatomy.visual] = values
        save_volume(layout.prf_file(subject, name), volume, anatomy.affine)


def write_betas(
    layout: NSDLayout,
    subject: str,
    anatomy: Anatomy,
    tuning: Tuning,
    signal: np.ndarray,
    image_rows: np.ndarray,
    rng: np.random.Generator,
    nifti: bool = False,
) -> SessionPlan:
    """Write session files, valid maps and ncsnr.

    Args:
        layout: The tree to write into.
        subject: ``'subj0N'``.
        anatomy: The brain.
        tuning: Tuning of its visual voxels.
        signal: (images, V) noise-free z-scored responses.
        image_rows: (trials,) row of ``signal`` of each trial; a multiple of 750.
        rng: Source of noise and drift.
        nifti: Also write ``betas_sessionNN.nii.gz``.

    Returns:
        The plan of the sessions.
    """
    visual = np.flatnonzero(anatomy.visual.ravel())
    other = np.flatnonzero((anatomy.brain & ~anatomy.visual).ravel())
    shape, sessions = anatomy.brain.shape, len(image_rows) // TRIALS_PER_SESSION
    plan = plan_sessions(len(visual), sessions, rng)
    other_std = rng.lognormal(0.6, 0.3, len(other)).astype(np.float32)
    folder = layout.beta_dir(subject)
    folder.mkdir(parents=True, exist_ok=True)
    z_scored = np.empty((len(image_rows), len(visual)), np.float32)
    for session in progress_bar(range(sessions), desc=f'{subject} betas', unit='session'):
        part = slice(session * TRIALS_PER_SESSION, (session + 1) * TRIALS_PER_SESSION)
        z = noisy_responses(signal[image_rows[part]], tuning.ncsnr.astype(np.float32), rng)
        percent = plan.mean + plan.std * (plan.offset[session] + plan.gain[session] * z)
        betas = np.zeros((int(np.prod(shape)), TRIALS_PER_SESSION), np.int16)  # voxel by voxel, as the chunks are
        betas[visual] = to_int16(np.where(plan.invalid[session], 0, percent)).T
        betas[other] = to_int16(
            other_std[:, None] * rng.standard_normal((len(other), TRIALS_PER_SESSION), dtype=np.float32)
        )
        z_scored[part] = np.where(plan.invalid[session], np.nan, betas[visual].T)
        write_session(layout.beta_file(subject, session + 1), betas, shape)
        if nifti:
            save_volume(
                layout.beta_file(subject, session + 1, 'nii.gz'),
                betas.reshape(shape + (-1,)),
                anatomy.affine,
                scaled=False,
            )
        valid = anatomy.brain.copy().ravel()
        valid[visual[plan.invalid[session]]] = False
        save_volume(layout.valid_file(subject, session + 1), valid.reshape(shape).astype(np.int16), anatomy.affine)
        values = z_scored[part]
        z_scored[part] = (values - values.mean(0)) / values.std(0, ddof=1)

    presentations = np.bincount(image_rows)
    order = np.argsort(image_rows, kind='stable')
    thrice = order[np.repeat(presentations, presentations) == 3].reshape(-1, 3)  # trials of images seen three times
    ncsnr = np.full(shape, np.nan, np.float32)
    ncsnr[anatomy.brain] = 0
    ncsnr[anatomy.visual] = estimate_ncsnr(z_scored[thrice])
    save_volume(folder / 'ncsnr.nii.gz', ncsnr, anatomy.affine)
    return plan


def write_session(path, betas: np.ndarray, shape) -> None:
    """Write betas (voxels, 750) int16 in [x, y, z] order as ``betas`` (750, Z, Y, X) with one chunk per voxel."""
    x_size, y_size, z_size = shape
    size = betas.nbytes + betas.nbytes // 8 + TABLES_BYTES  # an eighth for the index of the chunks
    with atomic_write(path, size) as temporary, h5py.File(temporary, 'w', libver='earliest') as file:
        dataset = file.create_dataset(
            'betas', (TRIALS_PER_SESSION, z_size, y_size, x_size), np.int16, chunks=(TRIALS_PER_SESSION, 1, 1, 1)
        )
        write = dataset.id.write_direct_chunk
        betas = betas.astype('<i2', copy=False)
        for z in range(z_size):
            for y in range(y_size):
                for x in range(x_size):
                    write((0, z, y, x), betas[(x * y_size + y) * z_size + z].tobytes())
