"""Losses between the global features of images and fMRI: contrastive (equation 6, temperature σ) and VICReg."""

from __future__ import annotations

import math
from typing import Dict, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmnfn.registry import MODELS

MAX_LOGIT_SCALE = 100.0


class Temperature(nn.Module):
    """Hold the temperature σ > 0 that similarities are divided by, learnable or fixed.

    The parameter is ``log_scale`` = log(1/σ), with 1/σ at most 100 as in CLIP. It is the parameter itself that is
    clamped before use, so its gradient does not vanish at the limit. Exclude it from weight decay with
    ``paramwise_cfg=dict(custom_keys={'log_scale': dict(decay_mult=0.)})``.

    Args:
        init: Initial σ.
        learnable: Whether σ is trained.

    Raises:
        ValueError: If ``init`` is not positive, or learnable and below 0.01.
    """

    def __init__(self, init: float, learnable: bool):
        super().__init__()
        smallest = 1 / MAX_LOGIT_SCALE if learnable else 0.0
        if not init > 0 or init < smallest:
            raise ValueError(
                f'temperature must be positive, and at least {1 / MAX_LOGIT_SCALE} when it is learnable, but got {init}'
            )
        log_scale = torch.tensor(-math.log(init))
        if learnable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer('log_scale', log_scale, persistent=False)
        self.learnable = learnable

    def forward(self) -> Tensor:
        """Return σ, a scalar tensor."""
        if not self.learnable:
            return torch.exp(-self.log_scale)
        if self.training:
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        # A sum, so that autograd does not save the parameter: a second call in the same step clamps it again in place,
        # which changes nothing, but autograd would refuse a saved tensor that was written to.
        excess = (self.log_scale.clamp(max=math.log(MAX_LOGIT_SCALE)) - self.log_scale).detach()
        return torch.exp(-(self.log_scale + excess))


def contrastive_logits(
    image: Tensor,
    fmri: Tensor,
    temperature: Union[float, Tensor],
    image_ids: Optional[Tensor] = None,
    normalize: bool = True,
) -> Tensor:
    """Compute the similarities p_i·q_j/σ of equation 6, −inf where j ≠ i shows the same image as i.

    Args:
        image: (N, D) image features p.
        fmri: (N, D) fMRI features q; row i belongs to row i of ``image``.
        temperature: σ.
        image_ids: (N,) integers; None if all images differ.
        normalize: Whether p and q are L2-normalised first.

    Returns:
        (N, N), images in rows.

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    if image.dim() != 2 or image.shape != fmri.shape:
        raise ValueError(
            f'image and fmri must have the same shape (N, D), but got {tuple(image.shape)} and {tuple(fmri.shape)}'
        )
    if normalize:
        image, fmri = F.normalize(image, dim=-1), F.normalize(fmri, dim=-1)
    logits = image @ fmri.t() / temperature
    if image_ids is not None:
        if image_ids.shape != image.shape[:1]:
            raise ValueError(
                f'image_ids must have shape ({image.shape[0]},), one id a sample, but got {tuple(image_ids.shape)}'
            )
        logits = logits.masked_fill(same_image(image_ids), float('-inf'))
    return logits


def same_image(image_ids: Tensor) -> Tensor:
    """Mark the pairs of *different* rows of ``image_ids`` (N,) that show the same image: (N, N) bool."""
    same = image_ids[:, None] == image_ids[None, :]
    return same & ~torch.eye(len(image_ids), dtype=torch.bool, device=image_ids.device)


def contrastive_loss(
    image: Tensor,
    fmri: Tensor,
    temperature: Union[float, Tensor],
    image_ids: Optional[Tensor] = None,
    symmetric: bool = True,
    normalize: bool = True,
) -> Tensor:
    """Compute equation 6: L_con = −1/N Σ_i log [ exp(p_i·q_i/σ) / Σ_j exp(p_i·q_j/σ) ].

    Other rows that show the image of row i (another trial, or another subject) are not negatives of i and are left out
    of the sum over j.

    Args:
        image: (N, D) image features p.
        fmri: (N, D) fMRI features q; row i belongs to row i of ``image``.
        temperature: σ.
        image_ids: (N,) integers; None if all images differ.
        symmetric: Average with the loss from fMRI to image; False is the paper's one-way form.
        normalize: Whether p and q are L2-normalised first (the paper does not say; True as in CLIP).

    Returns:
        The loss, a scalar tensor.

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    logits = contrastive_logits(image, fmri, temperature, image_ids, normalize)
    targets = torch.arange(len(logits), device=logits.device)
    loss = F.cross_entropy(logits, targets)
    if symmetric:
        loss = (loss + F.cross_entropy(logits.t(), targets)) / 2
    return loss


def batch_top1(image: Tensor, fmri: Tensor, image_ids: Optional[Tensor] = None, normalize: bool = True) -> Tensor:
    """Compute the share of images, in [0, 1], whose own fMRI features are the most similar ones in the batch.

    For the arguments see :func:`contrastive_logits`.
    """
    logits = contrastive_logits(image, fmri, 1.0, image_ids, normalize)
    hits = logits.argmax(dim=1) == torch.arange(len(logits), device=logits.device)
    return hits.to(logits.dtype).mean()


@MODELS.register_module()
class ContrastiveLoss(nn.Module):
    """Apply :func:`contrastive_loss` with a temperature of its own.

    Args:
        temperature: Initial σ.
        learnable_temperature: Whether σ is trained (1/σ at most 100).
        symmetric: Both directions, or image → fMRI only as in the paper.
        normalize: Whether features are L2-normalised.

    Raises:
        ValueError: If ``temperature`` is out of range.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        learnable_temperature: bool = True,
        symmetric: bool = True,
        normalize: bool = True,
    ):
        super().__init__()
        self.temperature = Temperature(temperature, learnable_temperature)
        self.symmetric = symmetric
        self.normalize = normalize

    def forward(self, image: Tensor, fmri: Tensor, image_ids: Optional[Tensor] = None) -> Tensor:
        """Compute the loss of features ``image`` and ``fmri``, both (N, D), with ``image_ids`` (N,)."""
        return contrastive_loss(image, fmri, self.temperature(), image_ids, self.symmetric, self.normalize)

    @torch.no_grad()
    def metrics(self, image: Tensor, fmri: Tensor, image_ids: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Compute σ and :func:`batch_top1`."""
        return dict(
            temperature=self.temperature(), batch_top1=batch_top1(image, fmri, image_ids, normalize=self.normalize)
        )


def vicreg_loss(image: Tensor, fmri: Tensor, weights: Sequence[float] = (25.0, 25.0, 1.0), eps: float = 1e-4) -> Tensor:
    """Compute VICReg (Bardes et al. 2022, algorithm 1): no negatives, each modality is kept from collapsing by itself.

    w_0 · mean (p − q)² + Σ over p and q of [ w_1 · mean_d max(0, 1 − √(var_d + ε)) + w_2 / D · Σ_{d ≠ e} cov_de² ];
    variances and covariances are over the N rows, divided by N − 1.

    Args:
        image: (N, D) image features p, N at least 2.
        fmri: (N, D) fMRI features q; row i belongs to row i of ``image``.
        weights: Of invariance, variance and covariance.
        eps: ε.

    Returns:
        The loss, a scalar tensor.
    """
    invariance, variance, covariance = weights
    loss = invariance * F.mse_loss(image, fmri)
    for features in (image, fmri):
        cov = features.t().cov()
        var = cov.diagonal()
        loss = loss + variance * F.relu(1 - (var + eps).sqrt()).mean()
        loss = loss + covariance * (cov.square().sum() - var.square().sum()) / len(cov)
    return loss


@MODELS.register_module()
class VICRegLoss(nn.Module):
    """Apply :func:`vicreg_loss` in place of :class:`ContrastiveLoss`.

    Args:
        weights: Of invariance, variance and covariance.
    """

    def __init__(self, weights: Sequence[float] = (25.0, 25.0, 1.0)):
        super().__init__()
        self.weights = weights

    def forward(self, image: Tensor, fmri: Tensor, image_ids: Optional[Tensor] = None) -> Tensor:
        """Compute the loss of features ``image`` and ``fmri``, both (N, D); ``image_ids`` play no part in it."""
        return vicreg_loss(image, fmri, self.weights)

    @torch.no_grad()
    def metrics(self, image: Tensor, fmri: Tensor, image_ids: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Compute :func:`batch_top1`."""
        return dict(batch_top1=batch_top1(image, fmri, image_ids))
