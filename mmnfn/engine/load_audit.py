"""Which weight of a module came from which entry of a checkpoint, and what helps where one did not.

The libraries load with ``strict=False``, each with a loader of its own, and a backbone that got none of its weights
trains without a word. So nothing is taken from what a loader says: after it has run, the module's values are compared
with those of the file.
"""

from __future__ import annotations

import re
import sys
from typing import Collection, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set, Tuple

import torch
from torch import Tensor, nn

from mmnfn.utils import UserError

from .checkpoint_file import Checkpoint
from .load_advice import Findings, advice, has_own_loader

# Of stages that pretraining did not use: see out_indices.
STAGE_NORM = re.compile(r'(?:backbone\.)?norm(\d+)\.(?:weight|bias)')
# Computed when a module is made or trained, so nothing is lost where a file lacks them or has them in vain.
COMPUTED = re.compile(
    r'(.*\.)?(relative_position_index|relative_coords_table|attn_mask|num_batches_tracked|trained_subjects)'
)
# Loaders fit them to another window or image size.
RESIZED = re.compile(r'(.*\.)?(relative_position_bias_table|absolute_pos_embed|pos_embed)')
GOOD = ('loaded', 'resized')


class LoadAuditError(UserError):
    """A checkpoint cannot be read, or did not load wholly."""


class Row(NamedTuple):
    """One tensor of a module.

    Attributes:
        key: Its key in the module.
        source: The key in the file that belongs to it, or None.
        shape: Its shape, and ``file_shape`` that of the source.
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
    """What became of a module's weights.

    Attributes:
        name: What was loaded, e.g. ``'backbone'``.
        path: The file.
        rows: One for each tensor of the module, in its order; tensors that are computed only where the file has them.
        left_over: Keys of the file that belong to the module and have no place in it.
        others: Keys of the file that belong to something else, by their first part.
        problem: What is wrong and what helps; None if every weight came from the file.
    """

    name: str
    path: str
    rows: Tuple[Row, ...]
    left_over: Tuple[str, ...]
    others: Dict[str, int]
    problem: Optional[str]

    def coverage(self) -> Tuple[int, int]:
        """How many of the tensors that the file should give were loaded, and how many there are."""
        wanted = [row for row in self.rows if row.status != 'unused stage']
        return sum(row.status in GOOD for row in wanted), len(wanted)

    def table(self) -> str:
        """Model key ← checkpoint key ← shape for people; blocks that went the same way share a line."""
        lines = [('model', 'checkpoint', 'shape', '')]
        for key, source, shape, file_shape, status in _merged(self.rows):
            shapes = str(shape) if file_shape in (None, shape) else f'{shape} here, {file_shape} in the file'
            lines.append((key, source or '-', shapes, '' if status == 'loaded' else status))
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        text = [
            f'{key:{widths[0]}}  <- {source:{widths[1]}}  <- {shape:{widths[2]}}  {status}'.rstrip()
            for key, source, shape, status in lines
        ]
        if self.left_over:
            keys = [row.key for row in _merged([Row(key, None, (), None, '') for key in self.left_over])]
            text.append(f'in the file and without a place in the {self.name}: {", ".join(keys)}')
        if self.others:
            counts = ', '.join(f'{name} ({count})' for name, count in self.others.items())
            text.append(f'in the file for other parts: {counts}')
        text.append(self.summary())
        return '\n'.join(text)

    def summary(self) -> str:
        """The coverage in a line."""
        loaded, wanted = self.coverage()
        unused = [row.key for row in self.rows if row.status == 'unused stage']
        tail = f'; {", ".join(unused)} belong to stages that its pretraining did not use' if unused else ''
        return f'{self.name}: {loaded} of {wanted} tensors loaded from {self.path}{tail}'


def _merged(rows) -> List[Row]:
    """Rows that differ in one block number only, as one: ``stages.2.blocks.[0-17].norm1.weight``."""
    groups: Dict[tuple, List[Row]] = {}
    for row in rows:
        template = _without_block(row.key), _without_block(row.source or ''), *row[2:]
        groups.setdefault(template, []).append(row)
    merged = []
    for (key, source, *_), members in groups.items():
        if len(members) > 1:
            numbers = sorted(int(_block(row.key)) for row in members)
            span = f'{numbers[0]}-{numbers[-1]}' if numbers[-1] - numbers[0] + 1 == len(numbers) else str(numbers)[1:-1]
            members = [
                members[0]._replace(
                    key=key.replace('*', f'[{span}]'), source=source.replace('*', f'[{span}]') if source else None
                )
            ]
        merged.append(members[0])
    return merged


def _number_of_block(key: str) -> Optional[re.Match]:
    """The second number of a key, which counts the blocks of a stage; the first one counts the stages."""
    found = list(re.finditer(r'(?<=\.)\d+(?=\.)', key))
    return found[1] if len(found) > 1 else None


def _block(key: str) -> str:
    found = _number_of_block(key)
    return found.group() if found else '0'


def _without_block(key: str) -> str:
    found = _number_of_block(key)
    return key[: found.start()] + '*' + key[found.end() :] if found else key


def _converted(module: nn.Module, state: Mapping[str, Tensor]) -> Dict[str, Tuple[str, Tensor]]:
    """Key as the module's own converter of Microsoft's files names it → (key in the file, value), if it has one."""
    convert = getattr(sys.modules.get(type(module).__module__), 'swin_converter', None)
    if convert is None or not getattr(module, 'convert_weights', False):
        return {key: (key, value) for key, value in state.items()}
    found = {}
    for key, value in state.items():
        for name, changed in convert({key: value}).items():
            found[name] = key, changed
    return found


def _best_prefix(own: Mapping[str, Tensor], names: Mapping[str, object], declared: Optional[str]) -> str:
    """Where in the file the module's keys are: the declared prefix if any of them is there, else where most are."""
    counts: Dict[str, int] = {}
    for name in names:
        parts = name.split('.')
        for depth in range(min(len(parts), 5)):
            if '.'.join(parts[depth:]) in own:
                prefix = ''.join(part + '.' for part in parts[:depth])
                counts[prefix] = counts.get(prefix, 0) + 1
    if declared is not None and counts.get(declared):
        return declared
    return max(counts, key=counts.get, default='')


def _unused_norms(own: Iterable[str], inside: Collection[str]) -> Set[str]:
    """Keys of the norms of stages that a file's pretraining did not use: it has the norm of a later stage only.

    Microsoft's Swin has one norm after the last stage, which is a classifier's, so there all of them are unused.
    """
    numbers = {int(match[1]) for match in map(STAGE_NORM.fullmatch, inside) if match}
    last = float('inf') if 'norm.weight' in inside else max(numbers, default=-1)
    matches = [match for match in map(STAGE_NORM.fullmatch, own) if match]
    return {match[0] for match in matches if int(match[1]) < last and int(match[1]) not in numbers}


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
    declared = None if prefix is None else prefix if prefix.endswith('.') else prefix + '.'
    found = _best_prefix(own, names, declared)
    inside = {key[len(found) :]: entry for key, entry in names.items() if key.startswith(found)}
    unused = _unused_norms(own, inside)

    rows = []
    for key, tensor in own.items():
        source, value = inside.get(key, (None, None))
        shape = tuple(tensor.shape)
        file_shape = None if value is None else tuple(value.shape)
        if file_shape != shape and COMPUTED.fullmatch(key):
            continue
        if value is None:
            status = 'unused stage' if key in unused else 'missing'
        elif file_shape != shape:
            # another number of windows or tokens, but as many heads or channels
            fits = RESIZED.fullmatch(key) and file_shape[-1] == shape[-1] and _resizes(module, key)
            status = 'resized' if fits else 'other shape'
        elif not loaded:
            status = 'in the file'
        else:
            status = 'loaded' if _same(tensor, value) else 'not loaded'
        rows.append(Row(key, source, shape, file_shape, status))

    tops = {key.partition('.')[0] for key in own}
    left_over, others = [], {}
    for key, (source, _) in names.items():
        rest = key[len(found) :]
        if key.startswith(found) and rest in own or COMPUTED.fullmatch(key):
            continue
        if key.startswith(found) and rest.partition('.')[0] in tops and not STAGE_NORM.fullmatch(rest):
            left_over.append(source)
        else:
            top = source.partition('.')[0]
            others[top] = others.get(top, 0) + 1
    audit = LoadAudit(name, checkpoint.path, tuple(rows), tuple(left_over), others, None)
    return audit._replace(problem=advice(Findings(audit, module, checkpoint, declared, found)))


def _resizes(module: nn.Module, key: str) -> bool:
    """Whether something that a tensor belongs to takes part in its loading: MMPretrain's backbones fit it there."""
    owners = [module]
    for name in key.split('.')[:-1]:
        owners.append(getattr(owners[-1], name))
    return has_own_loader(module) or any(owner._load_state_dict_pre_hooks for owner in owners)


def _same(tensor: Tensor, value: Tensor) -> bool:
    """Whether a tensor is what copying ``value`` into it gives; NaN is itself."""
    tensor, value = tensor.detach().cpu(), value.to(tensor.dtype)
    return torch.equal(tensor, value) or bool(torch.isclose(tensor, value, 0, 0, equal_nan=True).all())
