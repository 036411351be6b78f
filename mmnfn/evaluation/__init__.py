"""What training was worth: retrieval, voxel-wise encoding, and detection on COCO without NSD's pictures."""

from .coco import CocoNSDMetric
from .dump import DumpSubjectResults
from .encoding import EncodingMetric
from .encoding_maps import write_voxel_map
from .encoding_model import bootstrap_r, draw_images, fit_encoding_model, pearson_r
from .retrieval import RetrievalMetric, retrieval_figures, retrieval_ranks

__all__ = [
    'CocoNSDMetric',
    'DumpSubjectResults',
    'EncodingMetric',
    'RetrievalMetric',
    'bootstrap_r',
    'draw_images',
    'fit_encoding_model',
    'pearson_r',
    'retrieval_figures',
    'retrieval_ranks',
    'write_voxel_map',
]
