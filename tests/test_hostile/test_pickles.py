"""Mapping pickles of the Algonauts data and dumps of predictions of which any byte was changed."""

import ast
import io
import pickle
import struct

import numpy as np
import pytest
import torch
from guard import run_cases
from mutations import counts, mutate, rng_of
from pickle_attacks import bombs, name, runs, structures, text
from plain_tensors import Plain

from mmnfn.evaluation.dump import read_predictions
from mmnfn.nsd.pickled_dict import load_pickled_dict

CASES = counts(mapping=500, predictions=300)
LABELS = {0: 'Unknown', 1: 'OPA', 2: 'PPA\t', 3: 'RSC'}


def mapping():
    """What np.save makes of a dictionary."""
    stream = io.BytesIO()
    np.save(stream, LABELS)
    return stream.getvalue()


def dump():
    """What a test run keeps, of three images."""
    rng = torch.Generator().manual_seed(1)
    made = [
        dict(
            image_embedding=torch.randn(4, generator=rng),
            fmri_embedding=torch.randn(4, generator=rng),
            roi_present=torch.ones(2, dtype=torch.bool),
            image_id=7 * number,
            subject='subj01',
        )
        for number in range(3)
    ]
    return pickle.dumps(made)


def labels(path):
    return load_pickled_dict(path, 'labels')


def slow_labels(path):
    """The dictionary as its parts say it, without NumPy."""
    data = path.read_bytes()
    start = 10 if data[6] == 1 else 12
    length = int.from_bytes(data[8:start], 'little')
    assert ast.literal_eval(data[start : start + length].decode('latin1'))['descr'] == '|O'

    class Array(Plain):
        def find_class(self, module, name):
            return type(name, (), {'__init__': lambda *_: None, '__setstate__': lambda self, state: keep.append(state)})

    keep = []
    Array(io.BytesIO(data[start + length :])).load()
    return keep[-1][4][0]


def embeddings(path):
    return taken_apart(read_predictions(path), torch.Tensor.tolist)


def taken_apart(entries, values):
    """Subject, image and embeddings of each prediction."""
    return [
        (e['subject'], e['image_id'], {k: values(v) for k, v in e.items() if k.endswith('embedding')}) for e in entries
    ]


def slow_embeddings(path):
    """The same through another reader: each tensor is taken apart by NumPy."""

    class Entries(Plain):
        def find_class(self, module, name):
            return (lambda data: data) if name == '_load_from_bytes' else super().find_class(module, name)

    def values(tensor):
        data, offset, size, stride = tensor.arguments[:4]
        stream = io.BytesIO(data)
        for _ in range(3):
            Plain(stream).load()
        kind, count = (lambda saved: (saved[0], saved[3]))(Plain(stream, encoding='utf-8').load())
        Plain(stream).load()
        assert kind == 'FloatStorage' and struct.unpack('<q', stream.read(8)) == (count,)
        flat = np.frombuffer(stream.read(4 * count), '<f4')
        return [float(flat[offset + k * stride[0]]) for k in range(size[0])]

    with open(path, 'rb') as file:
        return taken_apart(Entries(file).load(), values)


READERS = {'mapping': (labels, slow_labels, mapping), 'predictions': (embeddings, slow_embeddings, dump)}


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(tmp_path, kind):
    read, slow, make = READERS[kind]
    original = make()

    def right(found, path):
        return repr(found) == repr(slow(path))  # repr: NaN is itself

    made = run_cases(
        CASES[kind], tmp_path / 'a.npy', read, right, lambda seed: mutate(original, rng_of(seed, kind)), original
    )
    assert min(made['refused'], made['right']) > len(CASES[kind]) // 50, made


def array_of(operations):
    """A mapping file whose only entry is what the operations make."""
    header = mapping()[: 10 + int.from_bytes(mapping()[8:10], 'little')]
    array = name('numpy.core.multiarray', '_reconstruct') + name('numpy', 'ndarray') + b'K\0\x85C\1b\x87R'
    kind = name('numpy', 'dtype') + text('O8') + b'\x89\x88\x87R'
    return header + b'\x80\2' + array + b'(K\1)' + kind + b'\x89]}K\1' + operations + b'satb.'


def header_of(description):
    """A file of which only the head says what it is."""
    text = description.encode()
    return b'\x93NUMPY\1\0' + struct.pack('<H', len(text)) + text + mapping()[128:]


HEADERS = {
    'a call': "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': ()}",
    'many levels': '(' * 9000 + ')' * 9000,
    'many signs': '-' * 9000 + '1',
    'numbers': "{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
    'a huge array': "{'descr': '|O', 'fortran_order': False, 'shape': (1099511627776,)}",
    'huge values': "{'descr': '|V2147483647', 'fortran_order': False, 'shape': ()}",
    'a negative shape': "{'descr': '|O', 'fortran_order': False, 'shape': (-1,)}",
    'too long': "{'descr': '|O', 'fortran_order': False, 'shape': ()}" + ' ' * 60000,
    'nothing': '',
}


def test_mappings_that_are_made_to_hurt_are_refused(tmp_path):
    bad = {what: array_of(do) for what, do in {**runs(tmp_path / 'marker'), **bombs()}.items() if len(do) < 1 << 20}
    bad.update({f'head: {what}': header_of(said) for what, said in HEADERS.items()})
    found = run_cases(
        bad, tmp_path / 'a.npy', labels, lambda found, _: found == {1: 'OPA'}, original=array_of(text('OPA'))
    )
    assert found['refused'] == len(bad) and not (tmp_path / 'marker').exists()


def test_predictions_that_are_made_to_hurt_are_refused(tmp_path):
    start = b'\x80\2]}' + text('subject') + text('subj01') + b's' + text('image_id') + b'K\1s' + text('image_embedding')
    everything = {**runs(tmp_path / 'marker'), **bombs(), **structures()}
    bad = {what: start + do + b'sa.' for what, do in everything.items() if len(do) < 1 << 20}
    storage = b'\x80\2' + name('os', 'system') + text(f'touch {tmp_path}/marker') + b'\x85R.'
    inside = b'B' + struct.pack('<I', len(storage)) + storage
    bad['a storage that runs'] = start + name('torch.storage', '_load_from_bytes') + inside + b'\x85Rsa.'
    shared = torch.zeros(5000)
    bad['one storage, a thousand times'] = pickle.dumps(
        [dict(subject='subj01', image_id=k, image_embedding=shared) for k in range(1000)]
    )
    found = run_cases(bad, tmp_path / 'a.pkl', embeddings, lambda *_: False)
    assert found['refused'] == len(bad) and not (tmp_path / 'marker').exists()
