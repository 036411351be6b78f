"""Hooks that any OpenMMLab config can name as ``mmnfn.<Hook>``."""

from .export_backbone_hook import ExportBackboneHook
from .interval_info_hook import IntervalInfoHook
from .load_audit_hook import LoadAuditHook
from .non_finite_loss_hook import NonFiniteLossHook
from .resumable_checkpoint_hook import ResumableCheckpointHook
from .resume_epoch_hook import ResumeEpochHook

__all__ = [
    'ExportBackboneHook',
    'IntervalInfoHook',
    'LoadAuditHook',
    'NonFiniteLossHook',
    'ResumableCheckpointHook',
    'ResumeEpochHook',
]
