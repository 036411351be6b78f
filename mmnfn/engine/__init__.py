"""Hooks, start-up on GPUs and on CPU machines, and what the command lines of ``tools/`` are made of."""

from .hooks import ExportBackboneHook, NonFiniteLossHook, ResumableCheckpointHook, ResumeEpochHook

__all__ = ['ExportBackboneHook', 'NonFiniteLossHook', 'ResumableCheckpointHook', 'ResumeEpochHook']
