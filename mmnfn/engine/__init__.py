"""Hooks, start-up on GPUs and on CPU machines, and what the command lines of ``tools/`` are made of."""

from .hooks import ExportBackboneHook

__all__ = ['ExportBackboneHook']
