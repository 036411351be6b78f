"""What training was worth: retrieval and voxel-wise encoding."""

from .encoding import EncodingMetric, fit_encoding_model, pearson_r
from .retrieval import RetrievalMetric, retrieval_figures

__all__ = ['EncodingMetric', 'RetrievalMetric', 'fit_encoding_model', 'pearson_r', 'retrieval_figures']
