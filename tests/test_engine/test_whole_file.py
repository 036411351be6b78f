"""Files that are replaced as a whole, or not at all."""

import pickle
import resource

import pytest
import torch
from child import in_child
from mmengine.evaluator import DumpResults

from mmnfn.disk import NoRoom, explained, full_disk_named, no_room
from mmnfn.engine.predictions import WholeDump, write_metrics
from mmnfn.engine.whole_file import WholeFileBackend, save_whole
from mmnfn.utils import atomic_write


class Dump(WholeDump, DumpResults):
    """As tools/test.py --dump makes one."""


def dump(results, path):
    Dump(out_file_path=str(path)).compute_metrics(results)


def write_text(content, path):
    with atomic_write(path) as temporary, open(temporary, 'w') as file:
        file.write(str(content))


WRITERS = dict(
    text=(write_text, 'a.txt', lambda path: path.read_text()),
    torch=(save_whole, 'a.pth', torch.load),
    checkpoint=(lambda content, path: WholeFileBackend().put(pickle.dumps(content), path), 'a.pth', None),
    metrics=(lambda content, path: write_metrics(dict(all=content), str(path)), 'a.json', None),
    yaml=(lambda content, path: write_metrics(dict(all=content), str(path)), 'a.yaml', None),
    dump=(dump, 'a.pkl', lambda path: pickle.loads(path.read_bytes())),
)


def limited(writer, path):
    """Write where no file may grow beyond 1000 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    WRITERS[writer][0](list(range(5000)), path)


@pytest.mark.parametrize('writer', WRITERS)
def test_a_full_disk(tmp_path, writer):
    """The error names the file and says what to do; what was there stays, and nothing else is left."""
    write, name, read = WRITERS[writer]
    path = tmp_path / 'folder' / name
    for before in (None, b'old'):
        if before is not None:
            path.write_bytes(before)
        error, ended = in_child(limited, writer, path)
        assert ended == 0 and isinstance(error, NoRoom), error
        assert str(error).startswith(f'[Errno 28] {path} could not be written: ') and 'Free space' in str(error)
        assert [file.read_bytes() for file in path.parent.iterdir()] == ([] if before is None else [before])
    write(list(range(5000)), path)
    if read is not None:
        content = read(path)
        assert content == (str(list(range(5000))) if writer == 'text' else list(range(5000)))
    assert list(path.parent.iterdir()) == [path]


def test_other_errors_are_left_alone(tmp_path):
    for error in (OSError(13, 'Permission denied'), RuntimeError('shapes differ'), ValueError('No space left')):
        assert not no_room(error)
        with pytest.raises(type(error)) as caught, full_disk_named(tmp_path):
            raise error
        assert caught.value is error


def test_the_innermost_name_counts(tmp_path):
    """A file is named by what writes it, not by the folder in which that happens."""
    with pytest.raises(NoRoom, match='inner could not be written: .*Remove it') as error, full_disk_named('outer'):
        with full_disk_named('inner', 'Remove it'):
            raise RuntimeError('Unable to extend file: error message = No space left on device')
    assert explained(error.value, 'other') is error.value and 'outer' not in str(error.value)
