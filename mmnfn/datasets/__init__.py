"""What is on disk: the NSD release, ROI stores, and the dataset made of them."""

from .files import DataError
from .images import StimulusImages
from .loading import LoadLabelMap
from .nsd_dataset import NSDDataset
from .nsd_layout import ROI_CLASSES, NSDLayout
from .roi_store import ROIStore
from .samplers import SubjectBatchSampler
from .transforms import LoadCaption, PackNSDInputs, WeightByReliability, collate_subject_batch

__all__ = [
    'DataError',
    'LoadCaption',
    'LoadLabelMap',
    'NSDDataset',
    'NSDLayout',
    'PackNSDInputs',
    'ROIStore',
    'ROI_CLASSES',
    'StimulusImages',
    'SubjectBatchSampler',
    'WeightByReliability',
    'collate_subject_batch',
]
