"""Hooks that any OpenMMLab config can name as ``mmnfn.<Hook>``."""

from .export_backbone_hook import ExportBackboneHook
from .interval_info import IntervalInfoHook
from .load_audit_hook import LoadAuditHook
from .non_finite_loss import NonFiniteLossHook
from .resume import ResumableCheckpointHook, ResumeEpochHook

__all__ = [
    'ExportBackboneHook',
    'IntervalInfoHook',
    'LoadAuditHook',
    'NonFiniteLossHook',
    'ResumableCheckpointHook',
    'ResumeEpochHook',
]
