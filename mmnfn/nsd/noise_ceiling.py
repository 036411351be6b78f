"""How well a perfect model could predict a voxel: ncsnr and the noise ceiling (NSD data manual)."""

from __future__ import annotations

import numpy as np


def mixed_noise_ceiling(ncsnr: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """Compute the noise ceiling of responses averaged over 1, 2 or 3 repeats.

    ``100·ncsnr² / (ncsnr² + (A3/3 + A2/2 + A1/1)/(A1 + A2 + A3))`` where A_n images have n repeats. The ceiling of a
    correlation is the square root of the fraction.

    Args:
        ncsnr: (V,) std of the signal / std of the noise.
        repeats: (images,) how many repeats were averaged for each image.

    Returns:
        (V,) percent of variance; NaN where ncsnr is NaN.
    """
    signal = np.asarray(ncsnr, np.float64) ** 2
    return 100 * signal / (signal + np.mean(1 / repeats))


def estimate_ncsnr(repeats: np.ndarray) -> np.ndarray:
    """Estimate ncsnr from the responses to images seen three times.

    ``v = sqrt(mean over images of var(3 repeats, ddof=1))``, ``ncsnr = sqrt(max(0, 1 − v²)) / v``, for responses that
    are z-scored within each session over all its trials, so that their total variance is 1.

    Args:
        repeats: (images, 3, V); NaN where a voxel had no data, which leaves the image out for that voxel.

    Returns:
        (V,) float64; NaN for voxels without any complete image.
    """
    variance = repeats.var(1, ddof=1, dtype=np.float64)
    count = np.isfinite(variance).sum(0)
    noise = np.sqrt(np.nansum(variance, axis=0) / np.where(count, count, np.nan))
    return np.sqrt(np.maximum(0, 1 - noise**2)) / noise
