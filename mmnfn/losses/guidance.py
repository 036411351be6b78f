"""fMRI-guided losses: between ROI features (equation 7), and between predicted and measured responses (L_enc)."""

from __future__ import annotations

from typing import Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmnfn.registry import MODELS

from .contrastive import Temperature, same_image

NEGATIVES = ('roi', 'roi+batch')
REDUCTIONS = ('mean', 'sum', 'none')


def fmri_guided_loss(
    image_rois: Tensor,
    fmri_rois: Tensor,
    temperature: Union[float, Tensor] = 1.0,
    present: Optional[Tensor] = None,
    negatives: str = 'roi',
    image_ids: Optional[Tensor] = None,
    normalize: bool = True,
    reduction: str = 'mean',
) -> Tensor:
    """Compute equation 7: L_bfg = −1/N Σ_i Σ_k log [ exp(p_i^k·q_i^k) / Σ_g exp(p_i^k·q_i^g) ].

    The literal form is ``temperature=1.0, normalize=False, negatives='roi', reduction='sum'``: the negatives are the
    other ROIs g of the same sample. Constant codes, one per ROI, minimise it without any knowledge of the stimulus.
    ``'roi+batch'`` rules that out: it adds the same ROI k of the other samples j to the denominator, except those that
    show the same image. ROIs that a subject lacks take no part, neither as k nor as g.

    Args:
        image_rois: (N, K, D) local image features p^k.
        fmri_rois: (N, K, D) ROI features q^k.
        temperature: Divides the products.
        present: (N, K) or (K,) bool, False where the subject lacks the ROI; None if it has all of them.
        negatives: ``'roi'`` or ``'roi+batch'``.
        image_ids: (N,) integers, used by ``'roi+batch'``; None if all images differ.
        normalize: Whether features are L2-normalised first.
        reduction: ``'mean'`` over the ROIs of a sample, which puts it on the scale of L_con; ``'sum'`` over them as in
            the equation; ``'none'`` keeps the part of each ROI.

    Returns:
        The mean over samples, a scalar tensor; with ``'none'`` (N, K), 0 where the subject lacks the ROI.

    Raises:
        ValueError: If the shapes do not fit each other, or ``negatives`` or ``reduction`` is unknown.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f'negatives must be one of {NEGATIVES}, but got {negatives!r}')
    if reduction not in REDUCTIONS:
        raise ValueError(f'reduction must be one of {REDUCTIONS}, but got {reduction!r}')
    if image_rois.dim() != 3 or image_rois.shape != fmri_rois.shape:
        raise ValueError(
            'image_rois and fmri_rois must have the same shape (N, K, D), but got '
            f'{tuple(image_rois.shape)} and {tuple(fmri_rois.shape)}'
        )
    num_samples, num_rois = image_rois.shape[:2]
    if present is None:
        present = torch.ones(num_rois, dtype=torch.bool, device=image_rois.device)
    if present.shape not in ((num_rois,), (num_samples, num_rois)):
        raise ValueError(
            f'present must have shape ({num_rois},) or ({num_samples}, {num_rois}), but got {tuple(present.shape)}'
        )
    present = present.expand(num_samples, num_rois)
    if normalize:
        image_rois, fmri_rois = F.normalize(image_rois, dim=-1), F.normalize(fmri_rois, dim=-1)

    logits = torch.einsum('nkd,ngd->nkg', image_rois, fmri_rois) / temperature
    positive = logits.diagonal(dim1=1, dim2=2)
    # An absent ROI stays in its own row, which is then finite and left out below.
    own = torch.eye(num_rois, dtype=torch.bool, device=present.device)
    logits = logits.masked_fill(~(present[:, None, :] | own), float('-inf'))
    if negatives == 'roi+batch':
        across = torch.einsum('nkd,mkd->nkm', image_rois, fmri_rois) / temperature
        excluded = torch.eye(num_samples, dtype=torch.bool, device=present.device)
        if image_ids is not None:
            excluded = excluded | same_image(image_ids)
        excluded = excluded[:, None, :] | ~present.t()[None, :, :]
        logits = torch.cat([logits, across.masked_fill(excluded, float('-inf'))], dim=2)
    parts = (torch.logsumexp(logits, dim=2) - positive).masked_fill(~present, 0.0)
    return parts if reduction == 'none' else reduce_rois(parts, present, reduction)


def reduce_rois(parts: Tensor, present: Tensor, reduction: str) -> Tensor:
    """Reduce the parts (N, K) of :func:`fmri_guided_loss` by ``'mean'`` or ``'sum'``."""
    total = parts.sum(dim=1)
    return (total / present.sum(dim=1).clamp(min=1) if reduction == 'mean' else total).mean()


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
    member = F.one_hot(subject, num_subjects).to(predicted.dtype)  # (B, S)
    count = member.sum(dim=0)[:, None]
    mean = member.t() / count.clamp(min=1)  # averages over the samples of a subject

    def centred(values: Tensor) -> Tensor:
        return values - member @ (mean @ values)

    predicted, measured = centred(predicted), centred(measured)
    covariance = mean @ (predicted * measured)
    variances = (mean @ predicted.square() + eps) * (mean @ measured.square() + eps)
    weight = (mean @ weight) * (count > 1)
    return (weight * (1 - covariance * variances.rsqrt())).sum() / weight.sum().clamp(min=eps)


@MODELS.register_module()
class CorrelationLoss(nn.Module):
    """Apply :func:`correlation_loss`."""

    def __init__(self, eps: float = 1e-6):
        super().__init__()
        self.eps = eps

    def forward(
        self, predicted: Tensor, measured: Tensor, weight: Tensor, subject: Tensor, num_subjects: int
    ) -> Tensor:
        """Compute the loss of a gathered batch."""
        return correlation_loss(predicted, measured, weight, subject, num_subjects, self.eps)


@MODELS.register_module()
class FMRIGuidedLoss(nn.Module):
    """Apply :func:`fmri_guided_loss` with a temperature of its own.

    Args:
        temperature: Initial temperature; 1.0 with ``normalize=False`` is the literal equation 7.
        learnable_temperature: Whether it is trained (its inverse at most 100).
        negatives: ``'roi'`` (the paper's) or ``'roi+batch'``.
        normalize: Whether features are L2-normalised.
        reduction: ``'mean'`` over a sample's ROIs or ``'sum'`` (the paper's).

    Raises:
        ValueError: If ``temperature`` is out of range, or ``negatives`` or ``reduction`` unknown.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable_temperature: bool = False,
        negatives: str = 'roi',
        normalize: bool = True,
        reduction: str = 'mean',
    ):
        super().__init__()
        if negatives not in NEGATIVES:
            raise ValueError(f'negatives must be one of {NEGATIVES}, but got {negatives!r}')
        if reduction not in REDUCTIONS[:2]:
            raise ValueError(f'reduction must be one of {REDUCTIONS[:2]}, but got {reduction!r}')
        self.temperature = Temperature(temperature, learnable_temperature)
        self.negatives = negatives
        self.normalize = normalize
        self.reduction = reduction

    def forward(
        self,
        image_rois: Tensor,
        fmri_rois: Tensor,
        present: Optional[Tensor] = None,
        image_ids: Optional[Tensor] = None,
        reduction: Optional[str] = None,
    ) -> Tensor:
        """Compute the loss of features (N, K, D) with ``present`` (N, K) or (K,) and ``image_ids`` (N,)."""
        reduction = reduction or self.reduction
        return fmri_guided_loss(
            image_rois, fmri_rois, self.temperature(), present, self.negatives, image_ids, self.normalize, reduction
        )
