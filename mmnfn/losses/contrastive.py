"""Contrastive loss between images and fMRI, equation 6."""

from __future__ import annotations

from typing import Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmnfn.registry import MODELS

from .temperature import Temperature


def contrastive_logits(
    image: Tensor,
    fmri: Tensor,
    temperature: Union[float, Tensor],
    image_ids: Optional[Tensor] = None,
    normalize: bool = True,
) -> Tensor:
    """Similarities p_i·q_j/σ of equation 6, −inf where j shows the same image as i ≠ j.

    Args:
        image: (N, D) image features p.
        fmri: (N, D) fMRI features q, row i belongs to row i of ``image``.
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
    """(N, N) bool, True where two *different* rows of ``image_ids`` (N,) show the same image."""
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
    """Equation 6: L_con = −1/N Σ_i log [ exp(p_i·q_i/σ) / Σ_j exp(p_i·q_j/σ) ].

    Rows that show the image of row i a second time (another trial, or another subject) are left out of the sum over j:
    they are no negatives of i.

    Args:
        image: (N, D) image features p.
        fmri: (N, D) fMRI features q, row i belongs to row i of ``image``.
        temperature: σ.
        image_ids: (N,) integers; None if all images differ.
        symmetric: Average with the same loss from fMRI to image. False is the one-way form of the paper.
        normalize: Whether p and q are L2-normalised first (the paper does not say; True as in CLIP).

    Returns:
        The loss, a tensor without axes.

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    logits = contrastive_logits(image, fmri, temperature, image_ids, normalize)
    targets = torch.arange(len(logits), device=logits.device)
    loss = F.cross_entropy(logits, targets)
    if symmetric:
        loss = (loss + F.cross_entropy(logits.t(), targets)) / 2
    return loss


@MODELS.register_module()
class ContrastiveLoss(nn.Module):
    """:func:`contrastive_loss` with its temperature.

    Args:
        temperature: σ at the start.
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
        """Loss of features ``image`` and ``fmri``, both (N, D), with ``image_ids`` (N,)."""
        return contrastive_loss(image, fmri, self.temperature(), image_ids, self.symmetric, self.normalize)

    @torch.no_grad()
    def top1(self, image: Tensor, fmri: Tensor, image_ids: Optional[Tensor] = None) -> Tensor:
        """Share of images whose own fMRI features are the most similar ones of the batch, in [0, 1]."""
        logits = contrastive_logits(image, fmri, self.temperature(), image_ids, self.normalize)
        hits = logits.argmax(dim=1) == torch.arange(len(logits), device=logits.device)
        return hits.to(logits.dtype).mean()
