"""Datasets, samplers and transforms for ROI stores and label maps."""

from .geometry import subject_geometry
from .loading import LoadLabelMap
from .nsd_dataset import NSDDataset
from .samplers import SubjectBatchSampler
from .transforms import LoadCaption, PackNSDInputs, WeightByReliability, collate_subject_batch

__all__ = [
    'LoadCaption',
    'LoadLabelMap',
    'NSDDataset',
    'PackNSDInputs',
    'SubjectBatchSampler',
    'WeightByReliability',
    'collate_subject_batch',
    'subject_geometry',
]
