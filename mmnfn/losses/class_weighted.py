"""Cross-entropy of pixels with a weight for each class."""

from __future__ import annotations

from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmnfn.registry import MODELS


@MODELS.register_module()
class ClassWeightedLoss(nn.Module):
    """Average the cross-entropy −log p of labelled pixels, each with the weight of its class: Σ w l / Σ w.

    MMSegmentation's ``CrossEntropyLoss(class_weight=…)`` has the same value, and fails (in 1.2.2) where a pixel is
    unlabelled, for it looks up the weight of class 255. For ``loss_decode`` of its heads.

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
        """Average the losses of the pixels of a batch; 0 without a labelled one.

        Args:
            logits: (B, C, H, W).
            label: (B, H, W) int64.
            weight: (B, H, W) of pixels, from a head's sampler.
            ignore_index: Label of pixels that do not count.
        """
        weights = logits.new_tensor(self.class_weight)
        losses = F.cross_entropy(logits, label, weights, ignore_index=ignore_index, reduction='none')
        if weight is not None:
            losses = losses * weight
        total = weights[label[label != ignore_index]].sum()
        return self.loss_weight * (losses.sum() / (total + torch.finfo(torch.float32).eps))
