"""Correlation between predicted and measured responses."""

from __future__ import annotations

import torch
from torch import Tensor


def correlation_loss(
    predicted: Tensor, measured: Tensor, weight: Tensor, subject: Tensor, num_subjects: int, eps: float = 1e-6
) -> Tensor:
    """L_enc = Σ_sv w_sv (1 − r_sv) / Σ_sv w_sv, r_sv being Pearson's r of voxel v over the samples of subject s.

    Column v stands for another voxel in each subject. A subject with a single sample has no correlation and takes no
    part. The sums over samples are matrix products, so that nothing waits for the device to say who is in the batch.

    Args:
        predicted: (B, V) predictions.
        measured: (B, V) responses.
        weight: (B, V) weight of each sample's voxels, the same in all samples of a subject; not negative.
        subject: (B,) int64, number of each sample's subject, below ``num_subjects``.
        num_subjects: S.
        eps: Added to the variances, so that a voxel which never changes has r = 0.

    Returns:
        The loss, a tensor without axes; 0 if all weights are.
    """
    member = torch.nn.functional.one_hot(subject, num_subjects).to(predicted.dtype)  # (B, S)
    count = member.sum(dim=0)[:, None]
    mean = member.t() / count.clamp(min=1)  # averages over the samples of a subject

    def centred(values: Tensor) -> Tensor:
        return values - member @ (mean @ values)

    predicted, measured = centred(predicted), centred(measured)
    covariance = mean @ (predicted * measured)
    variances = (mean @ predicted.square() + eps) * (mean @ measured.square() + eps)
    weight = (mean @ weight) * (count > 1)
    return (weight * (1 - covariance * variances.rsqrt())).sum() / weight.sum().clamp(min=eps)
