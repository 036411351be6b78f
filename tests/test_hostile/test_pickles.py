"""Dumps of predictions of which any byte was changed."""

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

CASES = counts(predictions=300)


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


READERS = {'predictions': (embeddings, slow_embeddings, dump)}


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
