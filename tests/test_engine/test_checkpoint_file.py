"""Checkpoints of every kind are read, and nothing in them is run."""

import http.server
import os
import pickle
import shutil
import threading
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR

from mmnfn.engine import checkpoint_file
from mmnfn.engine.checkpoint_file import read_checkpoint

WEIGHTS = {'backbone.a': torch.arange(6.0).view(2, 3), 'backbone.b': torch.ones(2, dtype=torch.int64)}


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class FromHistory:
    """Reaches any object through the class that checkpoints may name: getattr is a way out, too."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def assert_weights(checkpoint):
    assert list(checkpoint.state_dict) == list(WEIGHTS)
    for key, value in WEIGHTS.items():
        assert torch.equal(checkpoint.state_dict[key], value) and checkpoint.state_dict[key].dtype == value.dtype


@pytest.mark.parametrize('new_format', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('container', ['state_dict', 'model', ''])
def test_containers(tmp_path, container, new_format):
    path = tmp_path / 'a.pth'
    content = {container: WEIGHTS, 'epoch': 3} if container else WEIGHTS
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    checkpoint = read_checkpoint(path)
    assert_weights(checkpoint)
    assert checkpoint.container == container and checkpoint.foreign == ()


def test_training_checkpoint(tmp_path):
    """What a Runner writes: histories, numpy numbers, paths, parameters, an optimizer with views of one storage."""
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    parameter = torch.nn.Parameter(torch.ones(3))
    meta = dict(epoch=2, cfg='model = dict()', seed=np.int64(3), versions=['1', '2'])
    torch.save(
        dict(
            meta=meta,
            state_dict=WEIGHTS,
            message_hub=dict(log_scalars=dict(loss=history), runtime_info=dict(lr=np.float64(0.1), rng=np.arange(3))),
            optimizer=dict(state={0: dict(exp_avg=parameter)}),
        ),
        tmp_path / 'epoch_2.pth',
    )
    checkpoint = read_checkpoint(tmp_path / 'epoch_2.pth')
    assert_weights(checkpoint)
    assert checkpoint.foreign == ()
    assert checkpoint.meta == dict(epoch=2, cfg='model = dict()', versions=['1', '2'])
    assert checkpoint.refuse_foreign() is checkpoint


@pytest.mark.parametrize('new_format', [True, False], ids=['zip', 'legacy'])
def test_code_is_not_run_and_the_file_is_refused_by_name(tmp_path, new_format):
    path, trace = tmp_path / 'evil.pth', tmp_path / 'trace'
    torch.save(dict(state_dict=WEIGHTS, x=Command(f'touch {trace}')), path, _use_new_zipfile_serialization=new_format)
    checkpoint = read_checkpoint(path)
    assert_weights(checkpoint)  # so they can be taken out
    assert checkpoint.foreign == (f'{os.system.__module__}.system',) and not trace.exists()
    with pytest.raises(ValueError, match=r'ckpt: .*evil.pth would import \w+.system .*export_backbone.py'):
        checkpoint.refuse_foreign('ckpt')
    torch.load(path, weights_only=False)
    assert trace.exists(), 'the file does what it is refused for'


def test_getattr_is_for_histories_only(tmp_path):
    torch.save(dict(state_dict=WEIGHTS, x=FromHistory()), tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth').foreign == ('builtins.getattr',)


def test_weights_made_by_code_are_no_weights(tmp_path):
    torch.save(dict(state_dict=dict(WEIGHTS, c=Command('false'))), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match="a.pth has no state_dict of tensors .found 'c': system; entries: state_dict"):
        read_checkpoint(tmp_path / 'a.pth')


def write(path, data):
    path.write_bytes(data)
    return path


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="X: there is no file '.*nothing.pth'"):
        read_checkpoint(tmp_path / 'nothing.pth', 'X')
    scripted = tmp_path / 'script.pth'
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(scripted))
    torch.save(WEIGHTS, tmp_path / 'whole.pth')
    whole = (tmp_path / 'whole.pth').read_bytes()
    shutil.make_archive(str(tmp_path / 'archive'), 'tar', tmp_path, 'whole.pth')
    cases = {
        write(tmp_path / 'empty.pth', b''): 'it is empty',
        write(tmp_path / 'page.pth', b'<!DOCTYPE html>'): 'web page',
        write(tmp_path / 'lfs.pth', b'version https://git-lfs.github.com/spec/v1'): 'git lfs pull',
        write(tmp_path / 'cut.pth', whole[: len(whole) // 2]): 'it is cut off',
        write(tmp_path / 'st.pth', (2).to_bytes(8, 'little') + b'{}'): 'safetensors',
        tmp_path / 'archive.tar': 'archive',
        scripted: 'TorchScript',
        write(tmp_path / 'noise.pth', bytes(range(200, 256))): 'damaged',
        write(tmp_path / 'list.pth', pickle.dumps([1, 2])): 'damaged',
    }
    for path, words in cases.items():
        with pytest.raises(ValueError, match=f'X: .*{path.name} is .*{words}'):
            read_checkpoint(path, 'X')
    torch.save([1, 2], tmp_path / 'numbers.pth')
    with pytest.raises(ValueError, match='holds a list instead of weights'):
        read_checkpoint(tmp_path / 'numbers.pth')
    torch.save(dict(epoch=1), tmp_path / 'epoch.pth')
    with pytest.raises(ValueError, match="no state_dict of tensors .found 'epoch': int"):
        read_checkpoint(tmp_path / 'epoch.pth')


def test_a_web_address_is_downloaded_once_to_where_mmengine_looks(tmp_path, monkeypatch):
    served = tmp_path / 'served'
    served.mkdir()
    torch.save(WEIGHTS, served / 'swin.pth')
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(handler.func, 'log_message', lambda *args: None)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    for variable in ('http_proxy', 'HTTP_PROXY'):
        monkeypatch.delenv(variable, raising=False)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/swin.pth'
        copy = checkpoint_file.local_copy(url)
        server.shutdown()
    assert_weights(read_checkpoint(copy))
    assert checkpoint_file.local_copy(url) == copy, 'the server is gone'
    from mmengine.runner.checkpoint import CheckpointLoader

    assert list(CheckpointLoader.load_checkpoint(url, map_location='cpu')) == list(WEIGHTS)
    with pytest.raises(ValueError, match='other.pth cannot be downloaded: .*path of the file'):
        checkpoint_file.local_copy(url.replace('swin', 'other'))
    assert checkpoint_file.local_copy('open-mmlab://resnet50') is None
    assert checkpoint_file.local_copy('work_dirs/a.pth') == 'work_dirs/a.pth'


def test_schedulers_that_keep_a_method_are_no_strangers(tmp_path):
    """MMEngine's OneCycleLR saves one of its methods, which pickle looks up by getattr."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    scheduler = OneCycleLR(torch.optim.SGD([parameter], lr=1.0), eta_max=1.0, total_steps=4)
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta={}, param_schedulers=[scheduler.state_dict()]), path)
    checkpoint = read_checkpoint(str(path)).refuse_foreign()
    assert checkpoint.state_dict['a'].item() == 1


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    """Whatever reads it: a mask of attention alone may be infinite."""
    path = tmp_path / 'a.pth'
    mask = torch.full((2, 2), -float('inf'))
    torch.save(dict(state_dict={**WEIGHTS, 'text.attn_mask': mask}), path)
    read_checkpoint(path)
    spoiled = torch.tensor([1.0, value])
    torch.save(dict(state_dict={**WEIGHTS, 'backbone.c': spoiled, 'text.attn_mask': mask}), path)
    with pytest.raises(ValueError, match='CHECKPOINT: .*a.pth has NaN or infinite numbers in 1 of 4 tensors, backb'):
        read_checkpoint(path)
