"""Losses of NeuroFusionNet (pure functions under thin modules, exact in distributed training) and a loss of pixels."""

from .class_weighted import ClassWeightedLoss
from .contrastive import (
    ContrastiveLoss,
    Temperature,
    VICRegLoss,
    batch_top1,
    contrastive_logits,
    contrastive_loss,
    vicreg_loss,
)
from .gather import gather_features, gather_sizes
from .guidance import CorrelationLoss, FMRIGuidedLoss, correlation_loss, fmri_guided_loss, reduce_rois

__all__ = [
    'ClassWeightedLoss',
    'ContrastiveLoss',
    'CorrelationLoss',
    'FMRIGuidedLoss',
    'Temperature',
    'VICRegLoss',
    'batch_top1',
    'contrastive_logits',
    'contrastive_loss',
    'correlation_loss',
    'fmri_guided_loss',
    'gather_features',
    'gather_sizes',
    'reduce_rois',
    'vicreg_loss',
]
