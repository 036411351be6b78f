"""Hooks that any OpenMMLab config can name as ``mmnfn.<Hook>``."""

from .export_backbone_hook import ExportBackboneHook

__all__ = ['ExportBackboneHook']
