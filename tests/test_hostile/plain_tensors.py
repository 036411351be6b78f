"""A slow reader of torch.save's files that shares no code with mmnfn or torch: NumPy, and a loop for every value."""

import io
import itertools
import pickle
import zipfile

import numpy as np

KINDS = dict(FloatStorage='<f4', DoubleStorage='<f8', LongStorage='<i8', ByteStorage='u1', HalfStorage='<f2')


class Odd:
    """Anything that is no tensor."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        pass


class Ordered(dict):
    """``collections.OrderedDict``."""

    def __setstate__(self, state):
        pass


class Plain(pickle._Unpickler):
    """Tensors are kept as what the file says of them."""

    def find_class(self, module, name):
        if name == 'OrderedDict':
            return Ordered
        return type(name, (Odd,), {})

    def persistent_load(self, saved):
        return (saved[1].__name__, *saved[2:])


def _array(tensor, data):
    """Values of a tensor, one by one."""
    (kind, key, _, count, *_), offset, size, stride = tensor.arguments[:4]
    flat = np.frombuffer(data[key], KINDS[kind], count)
    values = [flat[offset + sum(map(int.__mul__, where, stride))] for where in itertools.product(*map(range, size))]
    return np.asarray(values, flat.dtype).reshape(size)


def _keys(content, found):
    """Names of the data of all tensors, with their type and count, wherever they are."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, tuple) and len(value) >= 4 and value[0] in KINDS:
            found[value[1]] = (value[0], value[3])
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, Odd):
            waiting += getattr(value, 'arguments', ())
    return found


def read(path):
    """State dict and metadata of a file with both."""
    data = {}
    if path.read_bytes().startswith(b'PK'):
        with zipfile.ZipFile(path) as archive:
            folder = archive.namelist()[0].partition('/')[0]
            content = Plain(io.BytesIO(archive.read(f'{folder}/data.pkl'))).load()
            for name in archive.namelist():
                data[name[len(folder) + len('/data/') :]] = archive.read(name)
    else:
        with open(path, 'rb') as file:
            for _ in range(3):
                Plain(file).load()
            content = Plain(file, encoding='utf-8').load()
            kinds = _keys(content, {})
            for key in Plain(file).load():
                kind, count = kinds[key]
                assert int.from_bytes(file.read(8), 'little') == count
                data[key] = file.read(count * np.dtype(KINDS[kind]).itemsize)
    state = content['state_dict'] if isinstance(content.get('state_dict'), dict) else content
    return {key: _array(value, data) for key, value in state.items() if type(value).__name__.startswith('_rebuild')}
