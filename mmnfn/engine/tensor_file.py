"""What torch.save wrote, read without torch.load.

torch.load passes over the checksums of its archives, and believes what a file says of the size of its tensors: a tensor
larger than its data gets whatever the memory holds. Here every record must be what its checksum says, and every tensor
must lie within its data.
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from io import BytesIO
from math import prod
from typing import Any, BinaryIO, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from mmnfn.engine.inert_pickle import InertUnpickler, OrderedDict

DTYPES = dict(
    Double=torch.float64,
    Float=torch.float32,
    Half=torch.float16,
    BFloat16=torch.bfloat16,
    Long=torch.int64,
    Int=torch.int32,
    Short=torch.int16,
    Char=torch.int8,
    Byte=torch.uint8,
    Bool=torch.bool,
    ComplexFloat=torch.complex64,
    ComplexDouble=torch.complex128,
)
LEGACY_START = 0x1950A86A20F9469CFC6C, 1001
"""Magic number and version of the format before archives."""
MAX_REPEATED = 1 << 20
"""Elements of a tensor that repeats its data, as that of ``expand`` does."""


class Storage(NamedTuple):
    """The data of tensors.

    Attributes:
        values: One-dimensional.
        memory: What it is made of, to be filled.
    """

    values: Tensor
    memory: bytearray


def _storage(memory: bytearray, dtype: torch.dtype) -> Storage:
    return Storage(torch.frombuffer(memory, dtype=dtype) if memory else torch.empty(0, dtype=dtype), memory)


def _rebuilt(storage: Storage, offset: int, size: Sequence[int], stride: Sequence[int], *flags: Any) -> Tensor:
    """A tensor; ``flags`` are requires_grad, hooks and metadata."""
    values, count = storage.values, prod(size)
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 64 or any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers):
        raise pickle.UnpicklingError(f'a tensor has size {tuple(size)}, stride {tuple(stride)} and offset {offset}')
    end = offset + (sum((n - 1) * step for n, step in zip(size, stride)) + 1 if count else 0)
    if end > len(values) or count > max(len(values), MAX_REPEATED):
        raise pickle.UnpicklingError(f'a tensor of size {tuple(size)} has {len(values)} values only')
    tensor = values.as_strided(tuple(size), tuple(stride), offset)
    return tensor.requires_grad_(True) if flags and flags[0] is True else tensor


def _parameter(data: Tensor, requires_grad: bool, hooks: Any = None) -> torch.nn.Parameter:
    return torch.nn.Parameter(data, requires_grad)


REBUILDING = {
    ('collections', 'OrderedDict'): OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuilt,
    ('torch._utils', '_rebuild_tensor'): _rebuilt,
    ('torch._utils', '_rebuild_parameter'): _parameter,
    ('torch', 'Size'): torch.Size,
    ('torch', 'device'): torch.device,
    **{('torch', name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
    **{('torch', f'{name}Storage'): dtype for name, dtype in DTYPES.items()},
}


class TensorUnpickler(InertUnpickler):
    """Rebuilds tensors and what is plain.

    Args:
        file: The pickle, in a file of its own, in an archive, or in a file of the format before archives.
        archive: Where the data are, for the pickle of an archive; :func:`open_archive` made it.
        room: Bytes that the data of the tensors can have, for a file of the format before archives.
    """

    def __init__(self, file: BinaryIO, archive: Optional[Archive] = None, room: int = 0):
        super().__init__(file, encoding='utf-8')
        self.archive, self.room = archive, room
        self.storages: Dict[str, Storage] = {}

    def known(self, module: str, name: str) -> Any:
        """Tensors and what they consist of."""
        return REBUILDING.get((module.replace('torch.cuda', 'torch'), name))

    def persistent_load(self, saved: Tuple) -> Any:
        """The data of a tensor; in a file of the format before archives they are still to be filled in."""
        if saved[0] == 'module':
            return saved[1]
        kind, dtype, key, _, count, *view = saved
        if kind != 'storage' or not isinstance(dtype, torch.dtype) or not isinstance(key, str) or any(view):
            raise pickle.UnpicklingError(f'{saved[:5]!r} is no data of a tensor')
        size = count * torch.empty(0, dtype=dtype).element_size()
        if key not in self.storages:
            if self.archive is not None:
                memory = self.archive.read(f'data/{key}')
            elif 0 <= size <= self.room:
                memory = bytearray(size)
                self.room -= size
            else:
                raise pickle.UnpicklingError(f'a tensor has {count} values of {dtype}, more than the file can hold')
            self.storages[key] = _storage(memory, dtype)
        storage = self.storages[key]
        if len(storage.memory) != size or storage.values.dtype != dtype:
            raise pickle.UnpicklingError(
                f'data {key} are {len(storage.memory)} bytes of {storage.values.dtype}, said to be {count} of {dtype}'
            )
        return storage


class _Nameless(InertUnpickler):
    """Of the parts of a file that name nothing: torch.load would import what they name all the same."""

    def known(self, module: str, name: str) -> Any:
        """Nothing is."""
        raise pickle.UnpicklingError(f'it asks for {module}.{name} beside its content')


class Archive:
    """The records of a file of today's format, with their checksums compared."""

    def __init__(self, file: zipfile.ZipFile, size: int):
        self.file = file
        infos = file.infolist()
        self.records = {info.filename: info for info in infos}
        if len({name.lower() for name in self.records}) < len(infos) or not infos:  # torch takes any case
            raise zipfile.BadZipFile('it holds two records of one name, or none')
        if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in infos):
            raise zipfile.BadZipFile('it holds compressed records, which torch.save does not write')
        if min(info.header_offset for info in infos) or sum(info.file_size for info in infos) > size:
            raise zipfile.BadZipFile('its records do not lie side by side')
        self.folder = infos[0].filename.partition('/')[0]
        if any(not name.startswith(f'{self.folder}/') for name in self.records):
            raise zipfile.BadZipFile('its records lie in several folders')

    def read(self, name: str) -> bytearray:
        """The content of a record."""
        info = self.records.get(f'{self.folder}/{name}')
        if info is None:
            raise zipfile.BadZipFile(f'it has no record {name}')
        return bytearray(self.file.read(info))


def load_tensors(path: str, unpickler: type = TensorUnpickler) -> Tuple[Any, InertUnpickler]:
    """The content of a file that torch.save wrote.

    Args:
        path: The file.
        unpickler: :class:`TensorUnpickler`, or one that knows more.

    Returns:
        The content, with stand-ins for whatever is no tensor and not plain; the unpickler, for the names asked for.

    Raises:
        Exception: Of many kinds, if the file is damaged.
    """
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(4) != b'PK\3\4':
            file.seek(0)
            return load_legacy(file, size, unpickler)
        with zipfile.ZipFile(file) as records:
            archive = Archive(records, size)
            if 'byteorder' in {name.partition('/')[2] for name in archive.records}:
                if archive.read('byteorder') != b'little':
                    raise pickle.UnpicklingError('it was written by a machine of another byte order')
            reader = unpickler(BytesIO(archive.read('data.pkl')), archive)
            return reader.load(), reader


def load_legacy(file: BinaryIO, size: int, unpickler: type = TensorUnpickler) -> Tuple[Any, InertUnpickler]:
    """The content of a file of the format before archives, as :func:`load_tensors`; it has no checksums."""
    if tuple(_Nameless(file).load() for _ in LEGACY_START) != LEGACY_START:
        raise pickle.UnpicklingError('it does not begin as files of torch.save do')
    _Nameless(file).load()  # sizes of C's types where it was written
    reader = unpickler(file, room=size)
    content = reader.load()
    keys: List[str] = _Nameless(file).load()
    if not isinstance(keys, list) or sorted(keys) != sorted(reader.storages):
        raise pickle.UnpicklingError('its tensors are not those whose data it holds')
    for key in keys:
        values, memory = reader.storages[key]
        (count,) = struct.unpack('<q', file.read(8))
        if count != len(values) or file.readinto(memory) != len(memory):
            raise EOFError(f'it ends within the data of tensor {key}')
    return content, reader


class PlainTensorUnpickler(TensorUnpickler):
    """For tensors that ``pickle.dump`` wrote, whose data are each a file of the format before archives."""

    bytes_per_operation = 8  # the embeddings of one image take some 170 operations and at least as many numbers

    def known(self, module: str, name: str) -> Any:
        """Tensors and what they consist of; UnpicklingError for anything else."""
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return lambda data: load_legacy(BytesIO(data), len(data))[0]
        found = super().known(module, name)
        if found is None:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}, which tensors do not need')
        return found
