"""Trained models in a few lines of Python: :func:`get_model` and :class:`BrainImageRetriever`."""

from .model import get_model
from .retriever import BrainImageRetriever, Ranking, rank

__all__ = ['BrainImageRetriever', 'Ranking', 'get_model', 'rank']
