"""Loading a checkpoint into a config's model for nothing but to see whether it arrives."""

from __future__ import annotations

from typing import List

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

from .checkpoint_file import read_checkpoint
from .config_nodes import dicts
from .hooks.load_audit_hook import pretrained_modules
from .load_audit import LoadAudit, audit_load


def check_load(cfg: Config, path: str, whole: bool = False) -> List[LoadAudit]:
    """Build a config's model, load a checkpoint the way the config says, and compare.

    Args:
        cfg: A config of any of the three libraries. Changed: its ``init_cfg`` name ``path`` afterwards.
        path: The checkpoint.
        whole: Load it into the whole model, whatever ``init_cfg`` says.

    Returns:
        One audit for each module that is initialised from a checkpoint; one of the model if there is none. A load that
        keys and shapes show to be impossible is not tried.

    Raises:
        FileNotFoundError, ValueError: There is no such checkpoint, it is damaged, or opening it would run code.
    """
    checkpoint = read_checkpoint(path).refuse_foreign('CHECKPOINT')
    for node in dicts(cfg.model):
        if node.get('type') == 'Pretrained' and 'checkpoint' in node:
            node['checkpoint'] = path
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        model = MODELS.build(cfg.model)
        loads = [] if whole else list(pretrained_modules(model))
        modules = [(name, module, init_cfg.get('prefix')) for name, module, init_cfg in loads]
        modules = modules or [('model', model, None)]
        audits = [audit_load(name, module, checkpoint, prefix, loaded=False) for name, module, prefix in modules]
        if any(audit.problem for audit in audits):
            return audits
        if loads:
            model.init_weights()
        else:
            load_checkpoint(model, path, map_location='cpu')
        return [audit_load(name, module, checkpoint, prefix) for name, module, prefix in modules]
