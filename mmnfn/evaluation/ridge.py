"""Ridge regression from image features to voxels, scored by Pearson's r with its uncertainty."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

ALPHAS = tuple(np.logspace(-1, 6, 15))
BACKENDS = dict(numpy='cpu', torch_cuda='cuda')
"""Where a fit computes: name → PyTorch's device."""
BLOCK = 2048
"""Voxels at a time, which bounds the memory of temporary arrays."""


def pearson_r(prediction: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Compute Pearson's r of each column; NaN if either is constant.

    Args:
        prediction: (images, V).
        response: (images, V).

    Returns:
        (V,) float64.
    """
    r = np.full(prediction.shape[1], np.nan)
    for part in _blocks(len(r)):
        p, q, varies = _centred(prediction[:, part], response[:, part])
        with np.errstate(invalid='ignore', divide='ignore'):
            value = (p * q).sum(0) / np.sqrt((p**2).sum(0) * (q**2).sum(0))
        r[part] = np.where(varies, value, np.nan)
    return r


def draw_images(count: int, bootstraps: int, seed: int) -> np.ndarray:
    """Draw images with replacement: (bootstraps, count), how often each image is in each resampling."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), bootstraps)


def bootstrap_r(prediction: np.ndarray, response: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Compute Pearson's r of each column over images drawn with replacement, the same images for all columns.

    Args:
        prediction: (images, V).
        response: (images, V).
        draws: (bootstraps, images), see :func:`draw_images`.

    Returns:
        (bootstraps, V) float32; NaN if either is constant, at all or among the drawn images, or none was drawn.
    """
    draws = draws / np.maximum(draws.sum(1, keepdims=True), 1)
    resampled = np.full((len(draws), prediction.shape[1]), np.nan, np.float32)
    for part in _blocks(prediction.shape[1]):
        p, q, varies = _centred(prediction[:, part], response[:, part])
        mean_p, mean_q = draws @ p, draws @ q
        var_p, var_q = draws @ p**2 - mean_p**2, draws @ q**2 - mean_q**2
        varies = varies & (var_p > 1e-12 * (p**2).mean(0)) & (var_q > 1e-12 * (q**2).mean(0))
        with np.errstate(invalid='ignore', divide='ignore'):
            value = (draws @ (p * q) - mean_p * mean_q) / np.sqrt(var_p * var_q)
        resampled[:, part] = np.where(varies, value, np.nan)
    return resampled


def _blocks(voxels: int):
    return (slice(start, start + BLOCK) for start in range(0, voxels, BLOCK))


def _centred(prediction: np.ndarray, response: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subtract the means in float64, and tell for which of the V columns both arrays vary."""
    varies = (np.ptp(prediction, axis=0) > 0) & (np.ptp(response, axis=0) > 0)
    centred = [x.astype(np.float64) - x.mean(0, dtype=np.float64) for x in (prediction, response)]
    return centred[0], centred[1], varies


class EncodingResult(NamedTuple):
    """Hold the outcome of an encoding model.

    Attributes:
        prediction: (test images, V).
        r: (V,) raw Pearson's r between prediction and response over the test images, NaN for constant voxels.
        resampled: (bootstraps, V) r over test images drawn with replacement.
    """

    prediction: np.ndarray
    r: np.ndarray
    resampled: np.ndarray


def fit_encoding_model(
    train_features: np.ndarray,
    train_responses: np.ndarray,
    test_features: np.ndarray,
    test_responses: np.ndarray,
    alphas: Sequence[float] = ALPHAS,
    bands: Optional[Sequence[int]] = None,
    bootstraps: int = 1000,
    seed: int = 0,
    draws: Optional[np.ndarray] = None,
    backend: str = 'numpy',
) -> EncodingResult:
    """Fit a ridge regression from features to voxels, each voxel with a regularisation of its own.

    Plain ridge chooses the regularisation by generalised cross-validation (Golub, Heath and Wahba, 1979), a
    rotation-invariant form of leave-one-out. One eigendecomposition serves all voxels and candidates; k-fold
    cross-validation would need one per fold. Banded ridge (Dupré la Tour et al., 2022) chooses weights of the bands by
    the same criterion: those of :func:`band_weights`, with an eigendecomposition for each.

    Features are z-scored with mean and std of the training images, and responses are centred on their training mean.
    Computation is in float32 unless the features are float64.

    Args:
        train_features: (n, F). train_responses: (n, V).
        test_features: (m, F). test_responses: (m, V).
        alphas: Candidates for the regularisation.
        bands: Sizes of consecutive groups of features, e.g. one per stage of a backbone, which are regularised
            separately (banded ridge); None for plain ridge.
        bootstraps: Number of resamplings of the test images.
        seed: Seed of bootstrap and random search.
        draws: (bootstraps, m) as of :func:`draw_images`; None draws the test images here.
        backend: ``'numpy'``, or ``'torch_cuda'`` to fit on the GPU.

    Raises:
        ValueError: If there are fewer than 10 training or 3 test images, ``bands`` do not add up to F, a feature is not
            finite, or ``backend`` is unknown or needs a GPU that is not there.
    """
    if backend not in BACKENDS:
        raise ValueError(f'backend must be one of {", ".join(BACKENDS)}, but got {backend!r}.')
    if backend == 'torch_cuda' and not torch.cuda.is_available():
        raise ValueError("backend='torch_cuda' needs a GPU, and this machine shows none; use backend='numpy'.")
    if len(train_features) < 10 or len(test_features) < 3:
        raise ValueError(
            f'an encoding model needs at least 10 training and 3 test images, found {len(train_features)} and '
            f'{len(test_features)}.'
        )
    if bands is not None and sum(bands) != train_features.shape[1]:
        raise ValueError(f'bands {tuple(bands)} must add up to the {train_features.shape[1]} features.')
    for name, features in (('training', train_features), ('test', test_features)):
        broken = ~np.isfinite(features.sum(axis=1, dtype=np.float64))  # without an array of that size
        if broken.any():
            raise ValueError(
                f'the features of {broken.sum()} of {len(features)} {name} images are NaN or infinite. Are the weights '
                'of the backbone finite?'
            )
    dtype = np.float64 if train_features.dtype == np.float64 else np.float32
    mean, std = train_features.mean(0), train_features.std(0)
    std = np.where(std > 1e-8, std, 1)
    x, x_test = (((f - mean) / std).astype(dtype) for f in (train_features, test_features))
    bands = (x.shape[1],) if bands is None else tuple(bands)
    prediction = _predict(x, train_responses, x_test, alphas, bands, band_weights(len(bands), seed), BACKENDS[backend])
    return EncodingResult(
        prediction,
        pearson_r(prediction, test_responses),
        bootstrap_r(prediction, test_responses, draw_images(len(x_test), bootstraps, seed) if draws is None else draws),
    )


def band_weights(bands: int, seed: int) -> np.ndarray:
    """List the weights of bands that banded ridge chooses from.

    Equal weights; each band alone, so that a band that helps nowhere costs nothing; and for B > 1 bands 4·B draws from
    Dirichlet distributions, half of them sparse (concentrations 0.1 and 1, as in himalaya).

    Returns:
        (weightings, B), each row adding up to 1.
    """
    if bands == 1:
        return np.ones((1, 1))
    rng = np.random.default_rng(seed)
    drawn = [rng.dirichlet(np.full(bands, concentration), 2 * bands) for concentration in (0.1, 1)]
    return np.concatenate([np.full((1, bands), 1 / bands), np.eye(bands), *drawn])


def _predict(
    x: np.ndarray,
    responses: np.ndarray,
    x_test: np.ndarray,
    alphas: Sequence[float],
    bands: Tuple[int, ...],
    weightings: np.ndarray,
    device: str,
) -> np.ndarray:
    """Predict (m, V) by ridge on centred features (n, F), with the best weighting and candidate for each voxel.

    With the weight w of a band of F_b features, X has its features times √(w·F / F_b), so that bands of any size have
    their weight's share in the variance of all. With X = U·√e·Vᵀ and z = Uᵀy, the residual sum of squares is
    Σ_j (α / (e_j + α))² z_j² + |y − Uz|², and the trace of the residual operator n − 1 − Σ_j e_j / (e_j + α). The best
    candidate α minimises the former over the latter squared.
    """
    candidates = torch.tensor(np.asarray(alphas), dtype=torch.float64, device=device)
    offset = responses.mean(0, dtype=np.float64).astype(x.dtype)
    prediction = np.full((len(x_test), len(offset)), np.nan, x.dtype)
    best = torch.full((len(offset),), torch.inf, dtype=torch.float64, device=device)
    for weights in weightings:
        scale = np.repeat(np.sqrt(weights * x.shape[1] / bands), bands).astype(x.dtype)
        basis, values, test = _decompose(*(torch.from_numpy(f * scale).to(device) for f in (x, x_test)))
        shrink = candidates[:, None] / (values + candidates[:, None])  # (candidates, k)
        freedom = len(x) - 1 - (1 - shrink).sum(1)
        inside = len(values) == len(x) - 1  # then the features span the centred responses
        for part in _blocks(len(offset)):
            y = torch.from_numpy(responses[:, part].astype(x.dtype) - offset[part]).to(device)
            z = basis.T @ y
            power = z.double() ** 2
            rest = 0 if inside else ((y.double() ** 2).sum(0) - power.sum(0)).clamp(min=0)
            score, chosen = ((shrink**2 @ power + rest) / freedom[:, None] ** 2).min(0)
            better = score < best[part]  # false for responses that are not finite
            best[part] = torch.where(better, score, best[part])
            fitted = test @ (z / (values[:, None] + candidates[chosen])).to(z.dtype)
            prediction[:, part] = np.where(
                better.cpu().numpy(), fitted.cpu().numpy() + offset[part], prediction[:, part]
            )
    return prediction


def _decompose(x: Tensor, x_test: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Decompose X·Xᵀ by way of the smaller Gram matrix.

    Returns:
        Eigenvectors U (n, k), eigenvalues (k,), and the test images in this basis, X_test·Xᵀ·U (m, k).
    """
    wide = x.shape[1] >= x.shape[0]
    values, vectors = torch.linalg.eigh((x @ x.T if wide else x.T @ x).double())
    keep = values > 10 * torch.finfo(x.dtype).eps * values[-1]
    values, vectors = values[keep], vectors[:, keep]
    if wide:
        vectors = vectors.to(x.dtype)
        return vectors, values, (x_test @ x.T) @ vectors
    root = values.sqrt()
    return x @ (vectors / root).to(x.dtype), values, x_test @ (vectors * root).to(x.dtype)
