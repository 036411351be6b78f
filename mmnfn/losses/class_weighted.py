"""Cross-entropy of pixels with class weights."""

from __future__ import annotations

from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmnfn.registry import MODELS


@MODELS.register_module()
class ClassWeightedLoss(nn.Module):
    """Average the cross-entropy l = −log p of the labelled pixels with the weights of their classes: Σ w l / Σ w.

    For ``loss_decode`` of MMSegmentation's heads. MMSegmentation's own ``CrossEntropyLoss(class_weight=…)`` gives the
    same value, but (in 1.2.2) fails if a pixel is unlabelled, because it looks up the weight of class 255.

    Args:
        class_weight: Weight of each class.
        loss_weight: Factor of the loss.
    """

    loss_name = 'loss_ce'

    def __init__(self, class_weight: Sequence[float], loss_weight: float = 1.0):
        super().__init__()
        self.class_weight, self.loss_weight = class_weight, loss_weight

    def forward(
        self, logits: Tensor, label: Tensor, weight: Optional[Tensor] = None, ignore_index: int = 255
    ) -> Tensor:
        """Average the losses of the pixels of a batch; 0 if none is labelled.

        Args:
            logits: (B, C, H, W).
            label: (B, H, W) int64.
            weight: (B, H, W) weights of the pixels, from a head's sampler.
            ignore_index: Label of unlabelled pixels.
        """
        weights = logits.new_tensor(self.class_weight)
        losses = F.cross_entropy(logits, label, weights, ignore_index=ignore_index, reduction='none')
        if weight is not None:
            losses = losses * weight
        total = weights[label[label != ignore_index]].sum()
        return self.loss_weight * (losses.sum() / (total + torch.finfo(torch.float32).eps))
