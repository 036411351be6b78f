"""Compare a module with the checkpoint it was loaded from, and say what helps where a weight did not arrive.

The libraries load with ``strict=False``, each with a loader of its own, and a backbone that got none of its weights
trains without a word. So nothing is taken from what a loader says: after it has run, the module's values are compared
with those of the file.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from mmnfn.utils import UserError, walk

from .checkpoint import PREFIX, Checkpoint, read_checkpoint

# Of stages that pretraining did not use: see out_indices.
STAGE_NORM = re.compile(r'(?:backbone\.)?norm(\d+)\.(?:weight|bias)')
# Computed when a module is made or trained, so nothing is lost where a file lacks them or has them in vain.
COMPUTED = re.compile(
    r'(.*\.)?(relative_position_index|relative_coords_table|attn_mask|num_batches_tracked|trained_subjects)'
)
# Loaders fit them to another window or image size.
RESIZED = re.compile(r'(.*\.)?(relative_position_bias_table|absolute_pos_embed|pos_embed)')


class LoadAuditError(UserError):
    """A checkpoint cannot be read, or did not load wholly."""


class Row(NamedTuple):
    """Describe what became of one tensor of a module.

    Attributes:
        key: Its key in the module.
        source: The key in the file that belongs to it, or None.
        shape: Its shape; ``file_shape`` is the source's.
        status: ``'in the file'`` before loading; ``'loaded'`` or ``'resized'`` if its value came from the file;
            ``'unused stage'`` for a norm of a stage that pretraining did not use; ``'missing'`` in the file,
            ``'other shape'`` there, or ``'not loaded'`` though it is there.
    """

    key: str
    source: Optional[str]
    shape: Tuple[int, ...]
    file_shape: Optional[Tuple[int, ...]]
    status: str


class LoadAudit(NamedTuple):
    """Describe what became of a module's weights.

    Attributes:
        name: What was loaded, e.g. ``'backbone'``.
        path: The file.
        rows: One for each tensor of the module, in its order; tensors that are computed only where the file has them.
        left_over: Keys of the file that belong to the module and have no place in it.
        problem: What is wrong and what helps; None if every weight came from the file.
    """

    name: str
    path: str
    rows: Tuple[Row, ...]
    left_over: Tuple[str, ...]
    problem: Optional[str] = None

    def keys(self, status: str) -> List[str]:
        """List the keys of one status."""
        return [row.key for row in self.rows if row.status == status]

    def coverage(self) -> Tuple[int, int]:
        """Count the tensors that were loaded, and those that the file should give."""
        loaded = len(self.keys('loaded')) + len(self.keys('resized'))
        return loaded, len(self.rows) - len(self.keys('unused stage'))

    def summary(self) -> str:
        """Say the coverage in a line."""
        loaded, wanted = self.coverage()
        unused = self.keys('unused stage')
        tail = f'; {", ".join(unused)} belong to stages that its pretraining did not use' if unused else ''
        return f'{self.name}: {loaded} of {wanted} tensors loaded from {self.path}{tail}'

    def table(self) -> str:
        """Write a line for each tensor, model key ← checkpoint key ← shape, and the summary."""
        lines = []
        for row in self.rows:
            other = '' if row.file_shape in (None, row.shape) else f' here, {row.file_shape} in the file'
            status = '' if row.status == 'loaded' else row.status
            lines.append((row.key, row.source or '-', f'{row.shape}{other}', status))
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = ['  <- '.join(map(str.ljust, line[:3], widths)) + f'  {line[3]}' for line in lines]
        if self.left_over:
            text.append(f'in the file and without a place in the {self.name}: {", ".join(self.left_over)}')
        return '\n'.join([*map(str.rstrip, text), self.summary()])


def audit_load(
    name: str,
    module: nn.Module,
    checkpoint: Checkpoint,
    prefix: Optional[str] = None,
    loaded: bool = True,
) -> LoadAudit:
    """Compare a module with the checkpoint it was, or is to be, loaded from.

    Args:
        name: What to call the module in messages.
        module: The module.
        checkpoint: The file.
        prefix: The ``prefix`` that its ``init_cfg`` gives; None for none.
        loaded: Whether the loader has run: then values are compared, else only keys and shapes.

    Returns:
        The audit.
    """
    own = module.state_dict()
    names = _converted(module, checkpoint.state_dict)
    declared = prefix if not prefix or prefix.endswith('.') else prefix + '.'
    found = _best_prefix(own, names, declared)
    inside = {key[len(found) :]: entry for key, entry in names.items() if key.startswith(found)}
    used = {int(match[1]) for match in map(STAGE_NORM.fullmatch, inside) if match}
    # Microsoft's Swin has one norm after the last stage, which is a classifier's, so there all of them are unused.
    last = float('inf') if 'norm.weight' in inside else max(used, default=-1)

    rows = []
    for key, tensor in own.items():
        source, value = inside.get(key, (None, None))
        shape = tuple(tensor.shape)
        file_shape = None if value is None else tuple(value.shape)
        norm = STAGE_NORM.fullmatch(key)
        if file_shape != shape and COMPUTED.fullmatch(key):
            continue
        if value is None:
            status = 'unused stage' if norm and int(norm[1]) < last and int(norm[1]) not in used else 'missing'
        elif file_shape != shape:
            # another number of windows or tokens, but as many heads or channels
            fits = RESIZED.fullmatch(key) and file_shape[-1] == shape[-1] and _resizes(module, key)
            status = 'resized' if fits else 'other shape'
        elif not loaded:
            status = 'in the file'
        else:
            same = torch.equal(tensor.detach().cpu(), value.detach().cpu().to(tensor.dtype))
            status = 'loaded' if same else 'not loaded'
        rows.append(Row(key, source, shape, file_shape, status))

    tops = {key.partition('.')[0] for key in own}
    left_over = tuple(
        source
        for key, (source, _) in inside.items()
        if key not in own
        and key.partition('.')[0] in tops
        and not COMPUTED.fullmatch(key)
        and not STAGE_NORM.fullmatch(key)
    )
    audit = LoadAudit(name, checkpoint.path, tuple(rows), left_over)
    problem = _wrong_names(audit, module, checkpoint, declared or '', found) or _wrong_weights(
        audit, module, checkpoint, found
    )
    return audit._replace(problem=problem and f'{checkpoint.path} does not load into the {name}: {problem}')


def _converted(module: nn.Module, state: Mapping[str, Tensor]) -> Dict[str, Tuple[str, Tensor]]:
    """Map keys as the module's own converter of Microsoft's files names them, if it has one, to key and value."""
    convert = getattr(sys.modules.get(type(module).__module__), 'swin_converter', None)
    if convert is None or not getattr(module, 'convert_weights', False):
        return {key: (key, value) for key, value in state.items()}
    return {name: (key, changed) for key, value in state.items() for name, changed in convert({key: value}).items()}


def _best_prefix(own: Mapping[str, Tensor], names: Iterable[str], declared: Optional[str]) -> str:
    """Find where in the file the module's keys are: under the declared prefix if any is there, else where most are."""
    counts: Counter = Counter()
    for name in names:
        parts = name.split('.')
        for depth in range(min(len(parts), 5)):
            if '.'.join(parts[depth:]) in own:
                counts[''.join(part + '.' for part in parts[:depth])] += 1
    return declared if declared is not None and counts[declared] else max(counts, key=counts.get, default='')


def _resizes(module: nn.Module, key: str) -> bool:
    """Tell whether a loader fits a tensor to its size: MMPretrain's backbones do, in hooks of the tensor's owners."""
    owners = [module]
    for name in key.split('.')[:-1]:
        owners.append(getattr(owners[-1], name))
    return _has_own_loader(module) or any(owner._load_state_dict_pre_hooks for owner in owners)


def _has_own_loader(module: nn.Module) -> bool:
    """Tell Swin of MMDetection and MMSegmentation, whose init_weights reads the file itself and ignores the prefix."""
    return type(module).__module__ in ('mmdet.models.backbones.swin', 'mmseg.models.backbones.swin')


def _wrong_names(
    audit: LoadAudit, module: nn.Module, checkpoint: Checkpoint, declared: str, found: str
) -> Optional[str]:
    """Advise where the file names its weights in another way than the module's loader expects."""
    kind, keys = type(module).__name__, checkpoint.state_dict
    own_loader, convert = _has_own_loader(module), getattr(module, 'convert_weights', None)
    # Swin has two sets of names, and MMDetection's loader an argument for them that is silent when it is wrong.
    microsoft = any(key.endswith('patch_embed.proj.weight') for key in keys) and any(
        '.attn.relative_position_bias_table' in key for key in keys
    )
    if convert and any(key.endswith('patch_embed.projection.weight') for key in keys):
        return (
            "convert_weights=True renames the keys of Microsoft's files, and this file has the names of OpenMMLab "
            'already; keys that are renamed twice are left out without a word. Set convert_weights=False.'
        )
    if microsoft and convert is False:
        return "the file has the names of Microsoft's Swin. Set convert_weights=True in the backbone."
    if microsoft and convert is None:
        return (
            f"the file has the names of Microsoft's Swin, which {kind} does not know. Use "
            "backbone.type='mmdet.SwinTransformer' with convert_weights=True, or MMPretrain's own file of the same "
            'weights.'
        )
    if not any(row.source for row in audit.rows):
        return (
            f'no key of the file belongs to {kind}; the file has {_some(keys)}, the {audit.name} has '
            f'{_some(row.key for row in audit.rows)}. Give a checkpoint of the same kind of model.'
        )
    if checkpoint.container == 'model' and not own_loader:
        return (
            "its weights are under 'model', and MMEngine reads 'state_dict' only. Take them out first: "
            "tools/model_converters/export_backbone.py CHECKPOINT OUT --prefix ''."
        )
    if own_loader:
        # the converter adds the prefix, and MMSegmentation, which has none, takes keys with it and without
        if convert or found == PREFIX or (convert is None and not found):
            return None
        return (
            f'{type(module).__module__.partition(".")[0]}.SwinTransformer takes keys that begin with '
            f"'backbone.', and in the file they begin with {found!r}. Use backbone.type='mmpretrain.SwinTransformer' "
            "with pad_small_map=True, whose loader is MMEngine's and knows prefixes."
        )
    if declared == found or (not declared and found == 'module.'):
        return None
    change = f"init_cfg.prefix='{found}'" if found else 'no prefix in init_cfg'
    return f'its weights are under {found!r} in the file, and the prefix given is {declared!r}. Give {change}.'


def _wrong_weights(audit: LoadAudit, module: nn.Module, checkpoint: Checkpoint, found: str) -> Optional[str]:
    """Advise where shapes, blocks or values differ."""
    kind, written = type(module).__name__, checkpoint.meta.get('backbone') or {}
    source = f' (it was written by {written["type"]}, arch={written.get("arch")!r})' if 'type' in written else ''
    wrong = [row for row in audit.rows if row.status == 'other shape']
    if wrong:
        return (
            f'{wrong[0].key} is {wrong[0].file_shape} there and {wrong[0].shape} here ({len(wrong) - 1} more differ): '
            f'the file is of another size or kind of {kind}{source}. Give the same arch to both, or another file.'
        )
    missing, surplus = audit.keys('missing'), audit.left_over
    if missing or surplus:
        found_there = (key[len(found) :] for key in checkpoint.state_dict if key.startswith(found))
        here, there = _stage_sizes(row.key for row in audit.rows), _stage_sizes(found_there)
        parts = [f'it lacks {len(missing)} tensors ({_some(missing)})'] if missing else []
        parts += [f'it has {len(surplus)} tensors without a place ({_some(surplus)})'] if surplus else []
        parts += [
            f'{name} has {there[name]} blocks there and {here[name]} here'
            for name in here
            if name in there and here[name] != there[name]
        ]
        return f'{", ".join(parts)}{source}. Give the same arch and depth to both, or another file.'
    lost = audit.keys('not loaded')
    if lost:
        return (
            f'the file has {len(lost)} tensors that fit, and after loading the {audit.name} has other values '
            f'({_some(lost)}): its loader left them out, or something changed them afterwards. Use a '
            'backbone with the prefix mmpretrain., whose loader logs what it does.'
        )
    return None


def _stage_sizes(keys: Iterable[str]) -> Counter:
    """Count the blocks of each stage."""
    block = re.compile(r'(?:backbone\.)?([a-z_]+\.\d+)\.(?:blocks\.)?(\d+)\.')
    return Counter(stage for stage, _ in sorted({match.groups() for match in map(block.match, keys) if match}))


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ', '.join(keys[:2]) + (', …' if len(keys) > 2 else '')


def pretrained_modules(model: nn.Module) -> Iterator[Tuple[str, nn.Module, Mapping]]:
    """List name, module and ``init_cfg`` of every module that a checkpoint initialises."""
    for name, module in model.named_modules():
        for _, init_cfg in walk(getattr(module, 'init_cfg', None)):
            if init_cfg.get('type') == 'Pretrained':
                yield name or 'model', module, init_cfg


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
    checkpoint = read_checkpoint(path)
    for _, node in walk(cfg.model):
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
