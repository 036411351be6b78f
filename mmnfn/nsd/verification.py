"""Does a store hold what the release holds? Random voxels, read and averaged again by another route."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import h5py
import nibabel as nib
import numpy as np

from .design import read_design
from .release import BETA_SCALE, TRIALS_PER_SESSION, NSDLayout, read_volume
from .store import ROIStore

TOLERANCE = {'float32': 2e-4, 'float16': 4e-3}


def verify_store(layout: NSDLayout, path: Path, voxels: int, seed: int = 0) -> Tuple[int, float]:
    """Compare random voxels of a store with the release.

    The betas are read through HDF5's or nibabel's own indexing, a voxel and session at a time, and averaged by a plain
    loop in double precision; the valid maps, where present, must agree with the voxels that have no data.

    Args:
        layout: The release tree that the store was made from.
        path: The store.
        voxels: How many voxels, at most all.
        seed: Seed of their choice.

    Returns:
        Number of voxels compared; largest difference, relative to 1 + the size of the value.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If there is a difference, naming voxel and image.
    """
    store = ROIStore(path)
    if store.space != 'func1pt8mm' or store.attributes['beta_version'] != layout.beta_version:
        raise ValueError(
            f'{path} holds {store.attributes["beta_version"]} betas in {store.space}, but the release tree was opened '
            f'for {layout.beta_version} in func1pt8mm. Choose the same --beta-version.'
        )
    sessions, count = store.attributes['sessions'].tolist(), len(store.ncsnr)
    ids, shared = read_design(layout.design_file).trials(store.subject, len(sessions))
    chosen = np.sort(np.random.default_rng(seed).choice(count, min(voxels, count), replace=False))
    places = store.location['voxel'][chosen].astype(int)
    single = np.full((len(chosen), len(ids)), np.nan)
    for position, session in enumerate(sessions):
        part = slice(position * TRIALS_PER_SESSION, (position + 1) * TRIALS_PER_SESSION)
        betas = _read(layout.session_file(store.subject, session), places).astype(float)
        valid_file = layout.valid_file(store.subject, session)
        if valid_file.exists():
            wrong = (read_volume(valid_file, 'valid map')[0][tuple(places.T)] > 0) != betas.any(1)
            if wrong.any():
                raise ValueError(
                    f'{valid_file} and the betas of session {session} disagree whether voxel {places[wrong][0]} has '
                    'data. Download both again.'
                )
        if store.attributes['normalization'] == 'none':
            normalized = betas / BETA_SCALE
        else:
            reference = betas if store.attributes['normalization'] == 'all' else betas[:, ~shared[part]]
            std = reference.std(1, ddof=1, keepdims=True)
            normalized = (betas - reference.mean(1, keepdims=True)) / np.where(std > 1e-6, std, np.nan)
        single[:, part] = np.where(betas.any(1, keepdims=True), normalized, np.nan)
    largest = 0.0
    for row, image in enumerate(store.image_id):
        repeats = single[:, ids == image]
        expected = np.nansum(repeats, 1) / np.maximum(np.isfinite(repeats).sum(1), 1)
        found = store.responses[row, chosen].astype(float)
        difference = np.nan_to_num(np.abs(found - expected) / (1 + np.abs(expected)), nan=np.inf)
        worst = int(difference.argmax())
        largest = max(largest, float(difference[worst]))
        if largest > TOLERANCE[str(store.responses.dtype)]:
            raise ValueError(
                f'{path}: voxel {places[worst].tolist()}, 73k id {image} (0-based): the store has {found[worst]:.5f}, '
                f'the release gives {expected[worst]:.5f}. Remove it, and make it again with tools/prepare_nsd.py.'
            )
    return len(chosen), largest


def _read(path: Path, places: np.ndarray) -> np.ndarray:
    """Read the (voxels, 750) raw betas."""
    if path.name.endswith('.nii.gz'):
        image = nib.load(path, keep_file_open=True)
        return np.stack([image.dataobj[..., trial][tuple(places.T)] for trial in range(TRIALS_PER_SESSION)], 1)
    with h5py.File(path, 'r') as file:
        return np.stack([file['betas'][:, z, y, x] for x, y, z in places])
