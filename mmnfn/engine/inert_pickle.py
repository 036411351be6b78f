"""Reading pickles without importing or calling anything that they name.

Unpickling can call any function, so every name that a file asks for becomes an inert stand-in unless the reader knows
it. A file can also hurt without a call: by a memo of gigabytes, by a key whose hash takes for ever, or by a tensor that
is changed after it was made. Python's own unpickler is the base, because its steps can be looked at one by one.
"""

from __future__ import annotations

import pickle
import pickletools
from os import SEEK_END
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Sequence, Tuple, Type

MAX_OPERATIONS = 1_000_000
"""Some twenty times those of a training checkpoint; a second or two."""
MAX_NAMES = 1000
NEEDED = """
PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT BINSTRING
SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_TUPLE TUPLE TUPLE1
TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL
STACK_GLOBAL REDUCE NEWOBJ NEWOBJ_EX BUILD BINPERSID
""".split()
"""What pickles of protocol 2 and later consist of, but for sets, whose makers are named like those of other objects.
Left out are text forms, which cost more time than their length, and what asks for memory without filling it."""


class StandIn:
    """What stands for an object that is not rebuilt: takes everything, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> StandIn:
        return StandIn()

    def append(self, value: Any) -> None:
        """Of pickled lists."""

    extend = add = append


class OrderedDict(dict):
    """Stands for that of ``collections``; attributes that a file gives it, such as ``items``, are dropped."""

    __slots__ = ()

    def __init__(self, entries: Sequence = ()):
        super().__init__((_checked(key), value) for key, value in entries)

    def __setstate__(self, state: Any) -> None:
        pass


class _Operations(dict):
    """What each operation does; counts them."""

    done, most = 0, 0

    def __getitem__(self, code: int) -> Callable:
        self.done += 1
        if self.done > self.most:
            raise pickle.UnpicklingError(f'it has more than {self.most} operations')
        if code not in self:
            raise pickle.UnpicklingError(f'it has the operation {chr(code)!r}, which data do not need')
        return super().__getitem__(code)


def _checked(key: Any) -> Any:
    """A key whose hash costs no more than its length, and is another than that of its fellows."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, (tuple, frozenset)) or (isinstance(part, int) and part.bit_length() > 60):
            raise pickle.UnpicklingError('it has a key of tuples in tuples, or of a huge number')
    return key


class InertUnpickler(pickle._Unpickler):
    """Makes plain objects; :meth:`known` says what else may be made.

    Args:
        file: Where the pickle is read from; not further than to its end.
        encoding: Of the texts in pickles of Python 2.

    Attributes:
        names: Names, (module, name), that the pickle asked for, with what they became.
        bytes_per_operation: Where each operation is known to come with so many bytes at least, a file may have as many
            operations as fit into it; None for :data:`MAX_OPERATIONS`.
    """

    bytes_per_operation: Optional[int] = None

    def __init__(self, file: BinaryIO, encoding: str = 'ASCII'):
        super().__init__(file, encoding=encoding)
        here = file.tell()
        self._file, self._end = file, file.seek(0, SEEK_END)
        file.seek(here)
        self._file_read = self._read_file
        self.names: Dict[Tuple[str, str], Any] = {}
        self.dispatch = _Operations(OPERATIONS)
        room = (self._end - here) // self.bytes_per_operation if self.bytes_per_operation else 0
        self.dispatch.most = max(MAX_OPERATIONS, room)

    def _read_file(self, size: int) -> bytes:
        if size > 1 << 16 and size > self._end - self._file.tell():  # Python would make room first, and then look
            raise pickle.UnpicklingError(f'it says that {size} bytes follow, and ends before')
        return self._file.read(size)

    def known(self, module: str, name: str) -> Any:
        """What a name is rebuilt as, or None for a stand-in. UnpicklingError refuses the file."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        if (module, name) not in self.names:
            if len(self.names) >= MAX_NAMES:
                raise pickle.UnpicklingError(f'it asks for more than {MAX_NAMES} names')
            found = self.known(module, name)
            # A class of its own: pickle makes objects of classes and calls functions, and this can be both.
            stand_in: Type[StandIn] = type(name, (StandIn,), {})
            self.names[module, name] = stand_in if found is None else found
        return self.names[module, name]

    def _put(self, index: int) -> None:
        # Picklers count; this reader could do with any number, but C's makes room for all up to it.
        if index > len(self.memo) + 1000:
            raise pickle.UnpicklingError(f'it remembers an object under {index}, having remembered {len(self.memo)}')
        self.memo[index] = self.stack[-1]

    def _binput(self) -> None:
        self._put(self.read(1)[0])

    def _long_binput(self) -> None:
        self._put(int.from_bytes(self.read(4), 'little'))

    def _set(self, entries: List[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (dict, StandIn)) or len(entries) % 2:
            raise pickle.UnpicklingError(f'it puts {len(entries)} keys and values into a {type(target).__name__}')
        for key, value in zip(entries[::2], entries[1::2]):
            target[_checked(key)] = value

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self.pop_mark())

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (StandIn, OrderedDict)):
            raise pickle.UnpicklingError(f'it changes a {type(self.stack[-1]).__name__} after making it')
        self.stack[-1].__setstate__(state)


OPERATIONS: Dict[int, Callable] = {
    code: step for code, step in pickle._Unpickler.dispatch.items() if pickletools.code2op[chr(code)].name in NEEDED
}
for _name in ('binput', 'long_binput', 'setitem', 'setitems', 'build'):
    OPERATIONS[getattr(pickle, _name.upper())[0]] = getattr(InertUnpickler, f'_{_name}')
