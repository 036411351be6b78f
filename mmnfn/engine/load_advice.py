"""What is wrong with a load, in a sentence, and what helps."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Dict, Iterable, List, NamedTuple, Optional

from torch import nn

from .checkpoint_file import Checkpoint

if TYPE_CHECKING:
    from .load_audit import LoadAudit, Row


class Findings(NamedTuple):
    """What advice is given on.

    Attributes:
        audit: The rows and what is left over.
        module: The module.
        checkpoint: The file.
        declared: The ``prefix`` of the module's ``init_cfg``, with its dot; None for none.
        found: The prefix under which the module's keys are in the file.
    """

    audit: LoadAudit
    module: nn.Module
    checkpoint: Checkpoint
    declared: Optional[str]
    found: str

    def rows(self, status: str) -> List[Row]:
        """Rows of one status."""
        return [row for row in self.audit.rows if row.status == status]


def advice(findings: Findings) -> Optional[str]:
    """The first thing that is wrong, with the way out; None if nothing is."""
    for rule in (_names_of_swin, _other_model, _container, _prefix, _shapes, _blocks, _not_loaded, _pooled_away):
        problem = rule(findings)
        if problem:
            return f'{findings.audit.path} does not load into the {findings.audit.name}: {problem}'
    return None


def _names_of_swin(findings: Findings) -> Optional[str]:
    """Swin has two sets of names, and MMDetection's loader an argument for them that is silent when it is wrong."""
    keys = findings.checkpoint.state_dict
    microsoft = any(key.endswith('patch_embed.proj.weight') for key in keys) and any(
        '.attn.relative_position_bias_table' in key for key in keys
    )
    openmmlab = any(key.endswith('patch_embed.projection.weight') for key in keys)
    convert = getattr(findings.module, 'convert_weights', None)
    if convert and openmmlab:
        return (
            "convert_weights=True renames the keys of Microsoft's files, and this file has the names of OpenMMLab "
            'already; what is renamed twice is left out without a word. Set convert_weights=False.'
        )
    if microsoft and convert is False:
        return "the file has the names of Microsoft's Swin. Set convert_weights=True in the backbone."
    if microsoft and convert is None:
        return (
            f"the file has the names of Microsoft's Swin, which {type(findings.module).__name__} does not know. Use "
            "backbone.type='mmdet.SwinTransformer' with convert_weights=True, or MMPretrain's own file of the same "
            'weights.'
        )
    return None


def _other_model(findings: Findings) -> Optional[str]:
    if any(row.source for row in findings.audit.rows):
        return None
    return (
        f'no key of the file belongs to {type(findings.module).__name__}; the file has '
        f'{_some(findings.checkpoint.state_dict)}, the {findings.audit.name} has '
        f'{_some(row.key for row in findings.audit.rows)}. Give a checkpoint of the same kind of model.'
    )


def _container(findings: Findings) -> Optional[str]:
    if findings.checkpoint.container == 'model' and not has_own_loader(findings.module):
        return (
            "its weights stand under 'model', and MMEngine reads 'state_dict' only. Take them out first: "
            "tools/model_converters/export_backbone.py CHECKPOINT OUT --prefix ''."
        )
    return None


def _prefix(findings: Findings) -> Optional[str]:
    found = findings.found
    if has_own_loader(findings.module):
        # the converter adds the prefix, and MMSegmentation, which has none, takes keys with it and without
        convert = getattr(findings.module, 'convert_weights', None)
        if convert or found == 'backbone.' or (convert is None and not found):
            return None
        return (
            f'{type(findings.module).__module__.partition(".")[0]}.SwinTransformer takes keys that begin with '
            f"'backbone.', and in the file they begin with {found!r}. Use backbone.type='mmpretrain.SwinTransformer' "
            "with pad_small_map=True, whose loader is MMEngine's and knows prefixes."
        )
    declared = findings.declared or ''
    if declared == found or (not declared and found == 'module.'):
        return None
    change = f"init_cfg.prefix='{found}'" if found else 'no prefix in init_cfg'
    return f'its weights stand under {found!r} in the file, and the prefix given is {declared!r}. Give {change}.'


def _shapes(findings: Findings) -> Optional[str]:
    wrong = findings.rows('other shape')
    if not wrong:
        return None
    row = wrong[0]
    return (
        f'{row.key} is {row.file_shape} there and {row.shape} here ({len(wrong) - 1} more differ): the file is of '
        f'another size or kind of {type(findings.module).__name__}{_written_with(findings)}. Give the same arch to '
        'both, or another file.'
    )


def _blocks(findings: Findings) -> Optional[str]:
    missing = [row.key for row in findings.rows('missing')]
    if not missing and not findings.audit.left_over:
        return None
    here = _stage_sizes(row.key for row in findings.audit.rows)
    there = _stage_sizes(
        key[len(findings.found) :] for key in findings.checkpoint.state_dict if key.startswith(findings.found)
    )
    differing = [
        f'{name} has {there[name]} blocks there and {here[name]} here'
        for name in here
        if name in there and here[name] != there[name]
    ]
    counts = []
    if missing:
        counts.append(f'it lacks {len(missing)} tensors ({_some(missing)})')
    if findings.audit.left_over:
        counts.append(f'it has {len(findings.audit.left_over)} without a place ({_some(findings.audit.left_over)})')
    text = ', and '.join(counts)
    if differing:
        text += '; ' + ', '.join(differing)
    return f'{text}{_written_with(findings)}. Give the same arch and depth to both, or another file.'


def _not_loaded(findings: Findings) -> Optional[str]:
    rows = findings.rows('not loaded')
    if not rows:
        return None
    return (
        f'the file has {len(rows)} tensors that fit, and after loading the {findings.audit.name} has other values '
        f'({_some(row.key for row in rows)}): its loader left them out, or something changed them afterwards. Use a '
        'backbone with the prefix mmpretrain., whose loader logs what it does.'
    )


def _pooled_away(findings: Findings) -> Optional[str]:
    """The weights are the same, so no loader can tell."""
    backbone = getattr(findings.module, 'backbone', findings.module)
    several = isinstance(getattr(backbone, 'out_indices', None), (list, tuple)) and len(backbone.out_indices) > 1
    if getattr(backbone, 'gap_before_final_norm', False) and several:
        return (
            'every weight fits, but gap_before_final_norm=True averages the feature maps away, and the neck needs '
            'maps. Set gap_before_final_norm=False in the backbone.'
        )
    return None


def has_own_loader(module: nn.Module) -> bool:
    """Swin of MMDetection and MMSegmentation, whose init_weights reads the file itself and ignores the prefix."""
    return type(module).__module__ in ('mmdet.models.backbones.swin', 'mmseg.models.backbones.swin')


def _written_with(findings: Findings) -> str:
    """What an export says of the backbone that it is from."""
    backbone = findings.checkpoint.meta.get('backbone')
    if not isinstance(backbone, dict) or 'type' not in backbone:
        return ''
    return f' (it was written by {backbone["type"]}, arch={backbone.get("arch")!r})'


def _stage_sizes(keys: Iterable[str]) -> Dict[str, int]:
    """Blocks of each stage: how many numbers follow ``stages.2`` or the like."""
    block = re.compile(r'(?:backbone\.)?([a-z_]+\.\d+)\.(?:blocks\.)?(\d+)\.')
    blocks = {match.groups() for match in map(block.match, keys) if match}
    return Counter(stage for stage, _ in sorted(blocks))


def _some(keys: Iterable[str], count: int = 2) -> str:
    keys = list(keys)
    return ', '.join(keys[:count]) + (', …' if len(keys) > count else '')
