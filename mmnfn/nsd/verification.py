"""Does a store hold what the release holds? Random voxels, read and averaged again by another route."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import h5py
import nibabel as nib
import numpy as np

from .design import read_design
from .files import existing
from .release import BETA_SCALE, TRIALS_PER_SESSION, NSDLayout
from .store import ROIStore
from .volumes import read_volume

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
        ValueError: If there is a difference, naming voxel and image; or if the number of voxels is below 1.
    """
    if voxels < 1:
        raise ValueError(f'voxels is {voxels}; it must be at least 1.')
    store = ROIStore(path)
    if store.space != 'func1pt8mm' or store.attributes['beta_version'] != layout.beta_version:
        raise ValueError(
            f'{path} holds {store.attributes["beta_version"]} betas in {store.space}, but the release tree was opened '
            f'for {layout.beta_version} in func1pt8mm. Choose the same --beta-version.'
        )
    sessions, volume = store.attributes['sessions'].tolist(), tuple(store.attributes['volume_shape'].tolist())
    ids, shared = read_design(layout.design_file).trials(store.subject, len(sessions))
    count = len(store.ncsnr)
    chosen = np.sort(np.random.default_rng(seed).choice(count, min(voxels, count), replace=False))
    places = store.location['voxel'][chosen].astype(int)
    single = np.full((len(chosen), len(ids)), np.nan)
    for position, session in enumerate(sessions):
        part = slice(position * TRIALS_PER_SESSION, (position + 1) * TRIALS_PER_SESSION)
        raw = _read(layout.session_file(store.subject, session), places)
        valid_file = layout.valid_file(store.subject, session)
        valid = read_volume(valid_file, 'valid map')[0] if valid_file.exists() else None
        if valid is not None and valid.shape != volume:
            raise ValueError(
                f'{valid_file} has shape {valid.shape}, but {path} has voxels of {volume}. Download it again.'
            )
        for number, (betas, place) in enumerate(zip(raw.astype(float), places)):
            if valid is not None and bool(valid[tuple(place)] > 0) != bool(betas.any()):
                raise ValueError(
                    f'{valid_file} says that voxel {place.tolist()} {"has" if valid[tuple(place)] > 0 else "lacks"} '
                    f'data, but its betas of session {session} say otherwise. Download both again.'
                )
            single[number, part] = _normalized(betas, shared[part], store.attributes['normalization'])
    largest = 0.0
    for row, image in enumerate(store.image_id):
        repeats = single[:, ids == image]
        with_data = np.isfinite(repeats)
        expected = np.where(with_data, repeats, 0).sum(1) / np.maximum(with_data.sum(1), 1)
        found = store.responses[row, chosen].astype(float)
        difference = np.abs(found - expected) / (1 + np.abs(expected))
        difference[np.isnan(difference)] = np.inf
        worst = int(difference.argmax())
        largest = max(largest, float(difference[worst]))
        if largest > TOLERANCE[str(store.responses.dtype)]:
            raise ValueError(
                f'{path}: voxel {places[worst].tolist()}, 73k id {image} (0-based): the store has {found[worst]:.5f}, '
                f'the release gives {expected[worst]:.5f}. Remove it, and make it again with tools/prepare_nsd.py.'
            )
    return len(chosen), largest


def _read(path: Path, places: np.ndarray) -> np.ndarray:
    """(voxels, 750) raw betas."""
    existing(path, 'session of betas', 'Download it, or make the store again with fewer sessions.')
    try:
        if path.name.endswith('.nii.gz'):
            image = nib.load(path, keep_file_open=True)
            volumes = (np.asanyarray(image.dataobj[..., trial]) for trial in range(TRIALS_PER_SESSION))
            return np.stack([volume[tuple(places.T)] for volume in volumes], 1)
        with h5py.File(path, 'r') as file:
            return np.stack([file['betas'][:, z, y, x] for x, y, z in places])
    except Exception as error:  # nibabel and h5py raise many kinds for a damaged file
        raise ValueError(f'{path} cannot be read: {error!r}. Download it again.') from error


def _normalized(betas: np.ndarray, shared: np.ndarray, normalization: str) -> np.ndarray:
    if not betas.any():
        return np.full(len(betas), np.nan)
    percent = betas / BETA_SCALE
    if normalization == 'none':
        return percent
    reference = percent if normalization == 'all' else percent[~shared]
    deviation = reference.std(ddof=1)
    return (percent - reference.mean()) / deviation if deviation > 1e-9 else np.full(len(betas), np.nan)
