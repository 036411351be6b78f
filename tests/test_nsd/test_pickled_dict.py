"""Dictionaries in npy files: read without executing anything."""

import io
import os
import pickle

import numpy as np
import pytest

from mmnfn.nsd.pickled_dict import load_pickled_dict


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(marker):
    return [
        Runs(os.system, f'touch {marker}'),
        Runs(exec, f'open({str(marker)!r}, "w")'),
        Runs(np.save, f'{marker}.npy', 1),
        Runs(np.fromfile, f'{marker}'),
        Runs(getattr, 'text', 'upper'),
    ]


@pytest.mark.parametrize('number', range(5))
@pytest.mark.parametrize('inside', [False, True])
def test_a_pickle_that_runs_something_is_refused(tmp_path, number, inside):
    marker = tmp_path / 'marker'
    payload = payloads(marker)[number]
    path = tmp_path / 'mapping_streams.npy'
    np.save(path, {0: payload} if inside else np.asarray(payload, object), allow_pickle=True)
    if number < 3:  # the payload works where nothing is refused
        np.load(path, allow_pickle=True)
        written = list(tmp_path.glob('marker*'))
        assert len(written) == 1
        written[0].unlink()
    with pytest.raises(ValueError, match='mapping_streams.npy.* is refused: it asks for'):
        load_pickled_dict(path, 'labels')
    assert not list(tmp_path.glob('marker*'))


def test_dictionaries_are_read_as_numpy_reads_them(tmp_path):
    path = tmp_path / 'table.npy'
    for version in ((1, 0), (2, 0)):
        with path.open('wb') as file:
            np.lib.format.write_array(file, np.asarray({0: 'Unknown', 1: 'OPA'}, object), version)
        assert load_pickled_dict(path, 'table') == {0: 'Unknown', 1: 'OPA'}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr='|O', fortran_order=False, shape=()))
    for protocol in (3, 4, 5):
        data = pickle.dumps(np.asarray({3: 'V3v'}, object), protocol)
        path.write_bytes(header.getvalue() + data)
        assert load_pickled_dict(path, 'table') == {3: 'V3v'}
        if protocol == 3:  # later protocols also store the length of the name
            for module in (b'numpy.core.multiarray', b'numpy._core.multiarray'):
                named = data.replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
                path.write_bytes(header.getvalue() + named.replace(b'numpy.core.multiarray', module))
                assert load_pickled_dict(path, 'table') == {3: 'V3v'}


@pytest.mark.parametrize('content', [np.zeros(3), np.asarray(3), np.asarray([1, 2], object), np.asarray('x', object)])
def test_other_arrays_are_no_dictionaries(tmp_path, content):
    path = tmp_path / 'table.npy'
    np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match='table.npy'):
        load_pickled_dict(path, 'table')
