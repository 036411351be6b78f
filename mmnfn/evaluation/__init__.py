"""What training was worth: retrieval and voxel-wise encoding."""

from .dump import DumpSubjectResults
from .encoding import EncodingMetric, fit_encoding_model, pearson_r
from .retrieval import RetrievalMetric, retrieval_figures, retrieval_ranks

__all__ = [
    'DumpSubjectResults',
    'EncodingMetric',
    'RetrievalMetric',
    'fit_encoding_model',
    'pearson_r',
    'retrieval_figures',
    'retrieval_ranks',
]
