"""Checkpoints: read without running what is in them, written as whole files, and exports of the backbone alone.

An export is ``{'state_dict': {'backbone.…': tensor}, 'meta': {…}}`` with tensors on the CPU and metadata made of str,
int, float, bool, None, list and dict only, so ``torch.load(path, weights_only=True)`` reads it. MMPretrain,
MMDetection and MMSegmentation load it with ``init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.')``,
and so they do with files in the safetensors format.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import os.path as osp
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Mapping, NamedTuple, Optional, Union
from urllib.parse import urlparse

import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_local_rank
from mmengine.fileio import LocalBackend, register_backend
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from mmnfn.utils import atomic_write, walk

from .provenance import provenance

PREFIX = 'backbone.'
CONTAINERS = ('state_dict', 'model')
"""Where the weights can be in a file: MMEngine's name, and the one of Microsoft's Swin, of timm and of DeiT."""

ALLOWED = {
    'torch': {'Size', 'device', *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    'torch._utils': {'_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_parameter'},
    'torch.torch_version': {'TorchVersion'},
    'builtins': {'set', 'frozenset', 'complex', 'slice', 'dict', 'list', 'int', 'float'},
    'collections': {'OrderedDict', 'defaultdict', 'Counter'},
    'argparse': {'Namespace'},
    'pathlib': {'PosixPath', 'WindowsPath'},
    'pathlib._local': {'PosixPath', 'WindowsPath'},
    '_codecs': {'encode'},
    'numpy': {'ndarray', 'dtype'},
    'numpy.core.multiarray': {'_reconstruct', 'scalar'},
    'numpy._core.multiarray': {'_reconstruct', 'scalar'},
    'mmengine.config.config': {'Config', 'ConfigDict'},
    'mmengine.logging.history_buffer': {'HistoryBuffer'},
    'mmengine.optim.scheduler.param_scheduler': {'OneCycleParamScheduler'},
}
"""Module → names that the checkpoints of PyTorch, NumPy and MMEngine consist of; none of them can run a file's code."""
METHODS = ('mean', 'max', 'min', 'current', '_annealing_cos', '_annealing_linear')
"""What the pickles of MMEngine's HistoryBuffer and OneCycleLR look up by ``getattr``."""


class ForeignName(pickle.UnpicklingError):
    """A file asks for something that no checkpoint needs; the message is its name."""


class RestrictedPickle:
    """Make what is in :data:`ALLOWED` and refuse the rest by name; a ``pickle_module`` for ``torch.load``."""

    class Unpickler(pickle.Unpickler):
        """Unpickle like Python, with restricted globals."""

        def find_class(self, module: str, name: str) -> Any:
            """Return what a name stands for."""
            module = {'__builtin__': 'builtins'}.get(module, module)
            if (module, name) == ('builtins', 'getattr'):
                return _method
            if (module, name) == ('torch.storage', '_load_from_bytes'):  # in a plain pickle of tensors
                return lambda data: torch_load(io.BytesIO(data))
            if name not in ALLOWED.get(module, ()):
                raise ForeignName(f'{module}.{name}')
            return getattr(importlib.import_module(module.replace('pathlib._local', 'pathlib')), name)

    @classmethod
    def load(cls, file: BinaryIO, **options: Any) -> Any:
        """Read a pickle."""
        return cls.Unpickler(file, **options).load()


def _method(owner: Any, name: str) -> Any:
    if name not in METHODS or getattr(owner, '__name__', None) not in ('HistoryBuffer', 'OneCycleParamScheduler'):
        raise ForeignName('builtins.getattr')
    return getattr(owner, name)


def torch_load(file: Union[str, BinaryIO]) -> Any:
    """Read what ``torch.save`` wrote, with tensors on the CPU; raise :class:`ForeignName` for code."""
    return torch.load(file, map_location='cpu', pickle_module=RestrictedPickle, weights_only=False)


class Checkpoint(NamedTuple):
    """Hold the weights of a checkpoint.

    Attributes:
        path: The file.
        state_dict: Its weights, on the CPU.
        meta: Its ``meta`` entry, {} where it has none.
        container: Under which name the weights are, ``''`` where they are the file's outermost dict.
    """

    path: str
    state_dict: Dict[str, Tensor]
    meta: Dict[str, Any]
    container: str

    @classmethod
    def of(cls, content: Any, path: str, argument: str = 'CHECKPOINT') -> Checkpoint:
        """Find weights and metadata in the content of a file; ValueError if there are none, or some are not finite."""
        content = content if isinstance(content, Mapping) else {}
        container = next((name for name in CONTAINERS if isinstance(content.get(name), Mapping)), '')
        state = content[container] if container else content
        odd = [f'{key!r}: {type(value).__name__}' for key, value in state.items() if not isinstance(value, Tensor)]
        weights = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        if not weights or (container and odd):
            raise ValueError(
                f'{argument}: {path} has no state_dict of tensors (found {(odd or ["nothing"])[0]}). Give a checkpoint '
                'written by tools/train.py, an export, or a file of model.state_dict().'
            )
        spoiled = non_finite(weights)
        if spoiled:
            raise ValueError(
                f'{argument}: {path} has NaN or infinite numbers in {len(spoiled)} of {len(weights)} tensors, '
                f'{spoiled[0]} among them: its training went wrong. Give an earlier checkpoint.'
            )
        return cls(path, weights, dict((content.get('meta') or {}) if container else {}), container)


def read_checkpoint(path: Union[str, Path], argument: str = 'CHECKPOINT') -> Checkpoint:
    """Read the weights and metadata of a checkpoint; nothing in the file is run.

    Args:
        path: A local file: a training checkpoint, an export, a bare state dict, or one in the safetensors format.
        argument: What the user gave the path as, for errors.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, would run code, or holds no weights, or weights that are NaN or infinite.
    """
    path = str(path)
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'{argument}: there is no file {path!r} (looked from {os.getcwd()}). Training writes '
            'checkpoints to its work folder, ./work_dirs/<config name>/.'
        )
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch.load passes over the checksums
                if damaged:
                    raise ValueError(f'the checksum of {damaged} is wrong')
        content = read_safetensors(path) if path.endswith('.safetensors') else torch_load(path)
    except ForeignName as error:
        raise ValueError(
            f'{argument}: {path} would import {error} when it is opened, which no weights need: it can run code. Ask '
            'for a file of the weights alone (model.state_dict(), or safetensors).'
        ) from error
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(
            f'{argument}: {path} is no checkpoint, or a damaged one ({_what_it_is(path) or error}). Copy or download '
            'it again, or take an earlier checkpoint.'
        ) from error
    return Checkpoint.of(content, path, argument)


def _what_it_is(path: str) -> str:
    """Say what a file that is no checkpoint is by its first bytes, where they tell."""
    with open(path, 'rb') as file:
        start = file.read(512)
    if start.startswith(b'version https://git-lfs'):
        return 'it is a pointer of Git LFS: git lfs pull fetches the file itself'
    if start.lstrip()[:1] in (b'<', b'{'):
        return 'it is a text: was a web page downloaded in its place?'
    if not start or (start.startswith(b'PK') and not zipfile.is_zipfile(path)):
        return 'it is cut off'
    return ''


def non_finite(state_dict: Mapping[str, Tensor]) -> List[str]:
    """List the keys of weights with NaN or infinite numbers, but for attention masks, which have them for a purpose."""
    return [
        key
        for key, value in state_dict.items()
        if value.is_floating_point() and not key.endswith('attn_mask') and not torch.isfinite(value).all()
    ]


@CheckpointLoader.register_scheme(prefixes=r'.+\.safetensors$')
def read_safetensors(path: str, map_location: Any = 'cpu') -> Dict[str, Any]:
    """Read a safetensors file as ``state_dict`` and ``meta``; with this the libraries' own loaders read them, too."""
    with safetensors.safe_open(path, 'pt') as file:
        meta = (file.metadata() or {}).get('meta', '{}')
        return dict(state_dict={key: file.get_tensor(key) for key in file.keys()}, meta=json.loads(meta))  # noqa: SIM118


def local_copy(path: str) -> Optional[str]:
    """Return where a checkpoint is on this machine, or None for addresses such as ``open-mmlab://`` and ``s3://``.

    A web address is downloaded to where MMEngine's loader looks for it; ValueError if that fails.
    """
    if not path.startswith(('http://', 'https://')):
        return None if '://' in path else path
    copy = osp.join(torch.hub.get_dir(), 'checkpoints', osp.basename(urlparse(path).path))
    if get_local_rank() == 0 and not osp.isfile(copy):
        os.makedirs(osp.dirname(copy), exist_ok=True)
        try:
            torch.hub.download_url_to_file(path, copy)  # complete or not there
        except OSError as error:
            raise ValueError(
                f'{path} cannot be downloaded: {error}. Download it elsewhere, and give the path of the file.'
            ) from error
    barrier()
    return copy


def last_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """Return the checkpoint that ``last_checkpoint`` of a work folder names, or None if there is no such file.

    The file holds the path that the checkpoint was written to. The folder may have been moved or copied since, so the
    checkpoint of that name beside the file comes first.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    if not pointer.is_file():
        return None
    written = pointer.read_text('utf-8', 'replace').strip()
    beside = pointer.parent / Path(written).name
    return str(beside) if beside.is_file() else written


class _DictCalls(ast.NodeTransformer):
    """Turns ``dict(a=1)`` and ``dict({'a.b': 1})`` into displays, the names ``inf`` and ``nan`` into numbers."""

    def visit_Call(self, node: ast.Call) -> ast.expr:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict':
            return node
        if node.args:  # MMEngine's form where a key is no name
            return node.args[0] if len(node.args) == 1 and not node.keywords else node
        return ast.Dict([ast.Constant(word.arg) for word in node.keywords], [word.value for word in node.keywords])

    def visit_Name(self, node: ast.Name) -> ast.expr:  # noqa: N802
        return ast.Constant(float(node.id)) if node.id in ('inf', 'nan') else node


def literal_config(text: str) -> Dict[str, Any]:
    """Read the literal settings of a config's text, as MMEngine prints one into a checkpoint.

    ``Config.fromstring`` runs such a text, which is not for files of others. Here ``name = value`` is understood where
    the value is made of literals, lists, tuples and ``dict(…)``; other settings are left out.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return {}
    settings = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                settings[node.targets[0].id] = ast.literal_eval(_DictCalls().visit(node.value))
            except ValueError:
                continue
    return settings


def atomic_save(content: Dict[str, Any], *paths: Union[str, Path]) -> None:
    """Save a checkpoint to one or more files, each of which is replaced as a whole.

    A path that ends in ``.safetensors`` gets ``state_dict`` in that format, with ``meta`` as JSON in its metadata.
    """
    for path in paths:
        if str(path).endswith('.safetensors'):
            data = safetensors.torch.save(content['state_dict'], dict(format='pt', meta=json.dumps(content['meta'])))
        else:
            buffer = io.BytesIO()
            torch.save(content, buffer)
            data = buffer.getbuffer()
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)


@register_backend('mmnfn_whole_file')
class WholeFileBackend(LocalBackend):
    """Write local files like MMEngine's backend, each replaced as a whole."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes to a file."""
        with atomic_write(filepath) as temporary:
            super().put(obj, temporary)


def plain(value: Any) -> Any:
    """Turn a value into str, int, float, bool, None, list and dict only; anything else becomes its text."""

    def change(odd: Any) -> Any:
        return odd.tolist() if hasattr(odd, 'tolist') else list(odd) if isinstance(odd, set) else str(odd)

    return json.loads(json.dumps(value, default=change))


def backbone_state(
    state_dict: Mapping[str, Tensor], prefix: str = PREFIX, source: str = 'the model'
) -> Dict[str, Tensor]:
    """Copy the backbone's part of a model's state dict to the CPU, under ``backbone.*`` keys.

    Args:
        state_dict: State dict of a whole model.
        prefix: Where the backbone is in it, '' if it is all of it. Keys become ``backbone.`` + what follows the prefix.
        source: Where the state dict is from, for the error.

    Raises:
        ValueError: No key begins with the prefix.
    """
    prefix = prefix if prefix.endswith('.') or not prefix else prefix + '.'
    exported = {
        PREFIX + key[len(prefix) :]: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }
    if not exported:
        found = sorted({key.partition('.')[0] for key in state_dict})
        raise ValueError(
            f'prefix: {source} has no weights under {prefix!r}; its weights begin with {", ".join(found)}. '
            'Give the prefix of the backbone.'
        )
    return exported


def backbone_config(cfg: Optional[Mapping]) -> Dict[str, Any]:
    """Find the first ``backbone`` dict of a config's model, also inside a wrapping model; {} where there is none."""
    nodes = (node.get('backbone') for _, node in walk((cfg or {}).get('model')))
    return next((backbone for backbone in nodes if isinstance(backbone, Mapping)), {})


def backbone_meta(cfg: Optional[Mapping] = None, **fields: Any) -> Dict[str, Any]:
    """Make the metadata of an export.

    Args:
        cfg: The run's config: gives the backbone's type and arguments, the subjects and the config text.
        fields: More entries, e.g. ``epoch``, ``iter``, ``seed``; they replace those below.

    Returns:
        ``backbone`` (type and arguments), ``time`` (UTC, ISO 8601), ``config`` (text) and what
        :func:`~mmnfn.engine.provenance.provenance` gives.
    """
    own = dict(
        backbone={key: value for key, value in backbone_config(cfg).items() if key != 'init_cfg'},
        time=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        config=getattr(cfg, 'pretty_text', ''),
        **provenance(cfg),
    )
    return plain({**own, **fields})


def export_checkpoint(path: str, out: str, prefix: str = PREFIX) -> Dict[str, Any]:
    """Export the backbone of a training checkpoint.

    Args:
        path: A checkpoint of any kind that :func:`read_checkpoint` reads.
        out: The export, ``.pth`` or ``.safetensors``.
        prefix: Where the backbone is in the model.

    Returns:
        The metadata written.
    """
    checkpoint = read_checkpoint(path)
    text = checkpoint.meta.get('cfg') or ''
    known = {key: checkpoint.meta.get(key) for key in ('epoch', 'iter', 'seed')}
    meta = backbone_meta(literal_config(text), config=text, **known, **checkpoint.meta.get('mmnfn', {}))
    atomic_save(dict(state_dict=backbone_state(checkpoint.state_dict, prefix, path), meta=meta), out)
    return meta


def export_random(cfg: Config, out: str, seed: int = 0) -> Dict[str, Any]:
    """Write the backbone of a config with random weights, the baseline of every comparison.

    Args:
        cfg: A config whose model has a ``backbone``; its ``init_cfg`` is left out if it names a checkpoint.
        out: The export, ``.pth`` or ``.safetensors``.
        seed: Seed of torch's generator; the generator's state is restored afterwards.

    Returns:
        The metadata written.
    """
    backbone = dict(backbone_config(cfg))
    if not backbone:
        raise ValueError(f'--random: the model of {cfg.filename} has no backbone. Give a config with model.backbone.')
    if any(node.get('type') == 'Pretrained' for _, node in walk(backbone.get('init_cfg'))):
        backbone.pop('init_cfg')
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        torch.manual_seed(seed)
        model = MODELS.build(backbone)
        model.init_weights()
    meta = backbone_meta(cfg, epoch=0, iter=0, seed=seed, subjects=[], split=None)
    atomic_save(dict(state_dict=backbone_state(model.state_dict(), ''), meta=meta), out)
    return meta
