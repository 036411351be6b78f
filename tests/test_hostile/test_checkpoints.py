"""Checkpoints of which any byte was changed, and those that are made to hurt."""

import io
import os
from functools import lru_cache

import numpy as np
import pytest
import torch
from checkpoint_attacks import KINDS, VALUES, archive, attacks, pickled, records, with_pickle
from guard import run_cases
from mmengine.logging import HistoryBuffer
from mutations import counts, mutate, rng_of
from pickle_attacks import call, runs, structures
from plain_tensors import read as plain_read

from mmnfn.engine.checkpoint_file import read_checkpoint

CASES = counts(archive=450, archive_inside=450, legacy=500, weights_only=200)
BASE = torch.arange(24.0)
WEIGHTS = {
    'backbone.a': BASE[:6].view(2, 3),
    'backbone.b': torch.ones(2, dtype=torch.int64),
    'backbone.t': BASE[6:18].view(3, 4).t(),
    'backbone.none': torch.empty(0, 3),
}


def content():
    """What a runner saves, in small."""
    return dict(
        meta=dict(epoch=2, cfg='model = dict()', seed=3, names=['a', 'b']),
        state_dict=WEIGHTS,
        message_hub=dict(log_scalars=dict(loss=HistoryBuffer([1.0, 2.0], [1, 1])), lr=np.float64(0.1)),
        optimizer=dict(state={0: dict(exp_avg=torch.nn.Parameter(BASE[18:21])), 1: dict(step=1)}),
    )


def saved(what=None, new_format=True):
    """Bytes of torch.save."""
    stream = io.BytesIO()
    torch.save(content() if what is None else what, stream, _use_new_zipfile_serialization=new_format)
    return stream.getvalue()


@lru_cache
def saved_content():
    """The same bytes every time."""
    return saved()


def inside(seed):
    """One of the records changed, with its checksum."""
    whole, rng = records(saved_content()), rng_of(seed, 'inside')
    chosen = rng.choice([*sorted(whole), *[name for name in whole if name.endswith('data.pkl')] * 4])
    return archive({**whole, chosen: mutate(whole[chosen], rng)})


def read(path):
    """The weights."""
    return {key: value.detach().numpy() for key, value in read_checkpoint(path).state_dict.items()}


def same(found, expected):
    """Keys, types and values are the same, to the bit."""
    return list(found) == list(expected) and all(
        found[key].dtype == expected[key].dtype
        and found[key].shape == expected[key].shape
        and found[key].tobytes() == expected[key].tobytes()
        for key in expected
    )


def as_saved(found, path):
    """The weights before the change."""
    return same(found, {key: value.numpy() for key, value in WEIGHTS.items()})


def as_written(found, path):
    """The weights that the slow reader finds: where there is no checksum, a changed value is a value."""
    return same(found, plain_read(path))


@pytest.mark.parametrize('kind', CASES)
def test_any_bytes_changed(tmp_path, kind):
    original = saved(WEIGHTS if kind == 'weights_only' else None, kind != 'legacy')
    other = saved({'backbone.a': torch.zeros(2, 3), 'meta': torch.zeros(99)}, kind != 'legacy')
    made = inside if kind == 'archive_inside' else lambda seed: mutate(original, rng_of(seed, kind), other)
    right = as_saved if kind in ('archive', 'weights_only') else as_written
    found = run_cases(CASES[kind], tmp_path / 'a.pth', read, right, made, original)
    assert min(found['refused'], found['right']) > len(CASES[kind]) // 50, found


def test_what_is_made_to_hurt_is_refused(tmp_path):
    bad = attacks(tmp_path)
    found = run_cases(bad, tmp_path / 'a.pth', read, lambda *_: False)
    assert found['refused'] == len(bad)
    assert not (tmp_path / 'marker').exists()


def test_what_would_run_is_named_and_not_run(tmp_path):
    """The weights can be taken out, and the loaders of the libraries are not given the file."""
    marker = tmp_path / 'marker'
    made = {f'{kind}, {what}': with_pickle(pickled(do), kind) for kind in KINDS for what, do in runs(marker).items()}

    def weights(path):
        return read_checkpoint(path).refuse_foreign().state_dict

    assert run_cases(made, tmp_path / 'a.pth', weights, lambda *_: False)['refused'] == len(made)
    assert not marker.exists()


def test_metadata_that_have_no_end_are_left_out(tmp_path):
    made = {f'{kind}, {what}': with_pickle(pickled(do), kind) for kind in KINDS for what, do in structures().items()}

    def right(found, path):
        return same({'backbone.a': found[0]['backbone.a'].numpy()}, {'backbone.a': VALUES})

    def both(path):
        checkpoint = read_checkpoint(path)
        assert 'x' not in checkpoint.meta
        return checkpoint.state_dict, checkpoint.meta

    assert run_cases(made, tmp_path / 'a.pth', both, right)['right'] == len(made)


def test_a_file_made_here_is_read_by_torch_too(tmp_path):
    """Else the tests above would refuse what no loader takes."""
    for kind in KINDS:
        path = tmp_path / kind
        path.write_bytes(with_pickle(pickled(b'N'), kind))
        for found in (torch.load(path, map_location='cpu'), {'state_dict': read_checkpoint(path).state_dict}):
            assert torch.equal(found['state_dict']['backbone.a'], WEIGHTS['backbone.a'])
        path.write_bytes(with_pickle(pickled(call('os', 'system', f'touch {tmp_path}/marker')), kind))
        torch.load(path, **({'weights_only': False}))
        os.remove(tmp_path / 'marker')
