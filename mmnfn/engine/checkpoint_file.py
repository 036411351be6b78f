"""Reading checkpoints without running anything that is in them.

A checkpoint is a pickle, and unpickling can call any function. Here only tensors are rebuilt; every other object that a
file names becomes an inert stand-in, so weights can be read from files of anybody. Whether the file names anything that
the libraries' own loaders had better not meet is reported as :attr:`Checkpoint.foreign`.
"""

from __future__ import annotations

import os
import os.path as osp
import struct
import zipfile
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank
from torch import Tensor

from mmnfn.engine.inert_pickle import StandIn

from .tensor_file import TensorUnpickler, load_tensors

# What the libraries' own checkpoints hold besides tensors, and what does nothing when it is made.
_NUMPY = ('numpy.core.multiarray', 'numpy._core.multiarray')
HARMLESS = {
    *((module, name) for module in _NUMPY for name in ('_reconstruct', 'scalar')),
    ('numpy', 'ndarray'),
    ('numpy', 'dtype'),
    ('_codecs', 'encode'),
    ('builtins', 'set'),
    ('builtins', 'frozenset'),
    ('builtins', 'complex'),
    ('builtins', 'slice'),
    ('collections', 'defaultdict'),
    ('collections', 'Counter'),
    ('argparse', 'Namespace'),
    ('pathlib', 'PosixPath'),
    ('pathlib', 'WindowsPath'),
    ('pathlib._local', 'PosixPath'),
    ('pathlib._local', 'WindowsPath'),
    ('torch.torch_version', 'TorchVersion'),
    ('yacs.config', 'CfgNode'),
    ('mmengine.config.config', 'ConfigDict'),
    ('mmengine.config.config', 'Config'),
    ('mmengine.logging.history_buffer', 'HistoryBuffer'),
    ('mmengine.optim.scheduler.param_scheduler', 'OneCycleParamScheduler'),
}
METHODS = {
    'HistoryBuffer': ('mean', 'max', 'min', 'current'),
    'OneCycleParamScheduler': ('_annealing_cos', '_annealing_linear'),
}
"""Methods that the pickles of two of MMEngine's classes look up by ``getattr``."""
MAX_PLAIN, MAX_DEPTH = 100_000, 100
"""Values in an entry of the metadata, and levels of them: lists in lists can be more than a file is long."""
CONTAINERS = ('state_dict', 'model')
"""Where the weights can stand in a file: MMEngine's name, and that of Microsoft's Swin, of timm and of DeiT."""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds.

    Attributes:
        path: The file.
        state_dict: Its weights, on the CPU.
        meta: Its ``meta`` entry, {} where it has none.
        container: Under which name the weights stand, ``''`` where they are the file's outermost dict.
        foreign: Names, ``module.name``, that the file wants imported and that no checkpoint of the libraries needs.
    """

    path: str
    state_dict: Dict[str, Tensor]
    meta: Dict[str, Any]
    container: str
    foreign: Tuple[str, ...]

    def refuse_foreign(self, argument: str = 'checkpoint') -> Checkpoint:
        """Return itself, or raise ValueError if opening the file the libraries' way could run code of its author."""
        if self.foreign:
            raise ValueError(
                f'{argument}: {self.path} would import {", ".join(self.foreign[:3])} when it is opened, which no '
                'weights need: it can run code. If you want its weights, take them out without opening the rest: '
                'tools/model_converters/export_backbone.py CHECKPOINT OUT.'
            )
        return self


class _WithMethods(StandIn):
    """Stands for a class of :data:`METHODS`."""


class _Unpickler(TensorUnpickler):
    """Rebuilds tensors, and notes what no checkpoint needs."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.foreign: List[str] = []

    def known(self, module: str, name: str) -> Any:
        """Tensors, and classes whose methods are looked up."""
        if (module, name) == ('builtins', 'getattr'):
            return self._method
        if name in METHODS and (module, name) in HARMLESS:
            return type(name, (_WithMethods,), {})
        found = super().known(module, name)
        if found is None and (module, name) not in HARMLESS:
            self.foreign.append(f'{module}.{name}')
        return found

    def find_class(self, module: str, name: str) -> Any:
        """As Python 3 calls it."""
        return super().find_class({'__builtin__': 'builtins'}.get(module, module), name)

    def _method(self, owner: Any = None, name: Any = None, *default: Any) -> StandIn:
        known = isinstance(owner, type) and issubclass(owner, _WithMethods)
        if not known or name not in METHODS[owner.__name__]:
            self.foreign.append('builtins.getattr')
        return StandIn()


def local_copy(path: str) -> Optional[str]:
    """Where a checkpoint is on this machine; a web address is downloaded to where MMEngine's loader looks for it.

    Args:
        path: A local path or an address.

    Returns:
        The local path, or None for other kinds of addresses (``open-mmlab://``, ``s3://`` …).

    Raises:
        ValueError: It cannot be downloaded.
    """
    path = str(path)
    if '://' not in path:
        return path
    if not path.startswith(('http://', 'https://')):
        return None
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


def _check_kind(path: str, argument: str) -> None:
    """Raise for what is no checkpoint at all, by its first bytes."""
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'{argument}: there is no file {path!r} (looked from {os.getcwd()}). Training writes '
            'checkpoints to its work folder, ./work_dirs/<config name>/.'
        )
    with open(path, 'rb') as file:
        start = file.read(512)
    found = None
    if not start:
        found = 'it is empty'
    elif start.startswith(b'version https://git-lfs'):
        found = 'it is a pointer of Git LFS; fetch the file itself (git lfs pull)'
    elif start.lstrip()[:1] in (b'<', b'{'):
        found = 'it is a text; was a web page downloaded in its place?'
    elif start[8:9] == b'{':
        found = 'it is in the safetensors format; save it as dict(state_dict=safetensors.torch.load_file(PATH))'
    elif start.startswith(b'PK'):
        try:
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                    found = 'it is a TorchScript program; save the state_dict of the model instead'
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error):
            found = 'it is cut off; copy or download it again'
    elif start[257:262] == b'ustar':
        found = 'it is an archive (tar); unpack it, or save it with a later PyTorch than 0.1'
    if found:
        raise ValueError(f'{argument}: {path} is not a checkpoint: {found}.')


def read_checkpoint(path: str, argument: str = 'CHECKPOINT') -> Checkpoint:
    """Read the weights of a checkpoint; nothing in the file is run.

    Args:
        path: A local file that torch.save wrote: a training checkpoint, an export, or a bare state dict.
        argument: What the caller's user gave the path as, for errors.

    Returns:
        Weights and metadata. Metadata that are neither text nor numbers are left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or holds no weights, or weights that are NaN or infinite.
    """
    path = str(path)
    _check_kind(path, argument)
    try:
        content, reader = load_tensors(path, _Unpickler)
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(
            f'{argument}: {path} is damaged, and cannot be read ({type(error).__name__}: {error}). Copy or '
            'download it again, or take an earlier checkpoint.'
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f'{argument}: {path} holds a {type(content).__name__} instead of weights. Save model.state_dict().'
        )
    container = next((name for name in CONTAINERS if isinstance(content.get(name), Mapping)), '')
    state = content[container] if container else content
    weights = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not weights or (container and len(weights) < len(state)):
        odd = next(
            (f'{key!r}: {type(value).__name__}' for key, value in state.items() if key not in weights), 'nothing'
        )
        raise ValueError(
            f'{argument}: {path} has no state_dict of tensors (found {odd}; entries: '
            f'{", ".join(sorted(map(str, content))[:8])}). Give a checkpoint written by tools/train.py, or an export.'
        )
    spoiled = non_finite(weights)
    if spoiled:
        raise ValueError(
            f'{argument}: {path} has NaN or infinite numbers in {len(spoiled)} of {len(weights)} tensors, {spoiled[0]} '
            'among them: its training went wrong. Give an earlier checkpoint.'
        )
    meta = content.get('meta') if container else None
    return Checkpoint(
        path,
        weights,
        {key: value for key, value in meta.items() if _is_plain(value)} if isinstance(meta, Mapping) else {},
        container,
        tuple(dict.fromkeys(reader.foreign)),
    )


def non_finite(state_dict: Mapping[str, Tensor]) -> List[str]:
    """Keys of weights with NaN or infinite numbers; masks of attention have them for a purpose."""
    return [
        key
        for key, value in state_dict.items()
        if value.is_floating_point() and not key.endswith('attn_mask') and not torch.isfinite(value).all()
    ]


def _is_plain(value: Any) -> bool:
    """Whether it is text and numbers only, and not more or deeper than can be looked through."""
    waiting, count = [(value, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MAX_PLAIN or depth > MAX_DEPTH:
            return False
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                return False
            waiting += [(child, depth + 1) for child in value.values()]
        elif isinstance(value, (list, tuple)):
            waiting += [(child, depth + 1) for child in value]
        elif not (value is None or isinstance(value, (str, int, float, bool))):
            return False
    return True
