"""Metrics: retrieval, voxel-wise encoding, and detection on COCO without the images of NSD."""

from .coco import CocoNSDMetric
from .dump import DumpSubjectResults
from .encoding import EncodingMetric, ResponseMetric, write_voxel_map
from .localization import LocalizationMetric
from .retrieval import RetrievalMetric, retrieval_metrics, retrieval_ranks
from .ridge import bootstrap_r, draw_images, fit_encoding_model, pearson_r

__all__ = [
    'CocoNSDMetric',
    'DumpSubjectResults',
    'EncodingMetric',
    'LocalizationMetric',
    'ResponseMetric',
    'RetrievalMetric',
    'bootstrap_r',
    'draw_images',
    'fit_encoding_model',
    'pearson_r',
    'retrieval_metrics',
    'retrieval_ranks',
    'write_voxel_map',
]
