"""Hooks, start-up on GPUs and on CPU machines, and what the command lines of ``tools/`` are made of."""

from .hooks import ExportBackboneHook, LoadAuditHook, NonFiniteLossHook, ResumableCheckpointHook, ResumeEpochHook

__all__ = ['ExportBackboneHook', 'LoadAuditHook', 'NonFiniteLossHook', 'ResumableCheckpointHook', 'ResumeEpochHook']
