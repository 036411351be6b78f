"""Checkpoints of every kind are read and nothing in them is run; exports load in all libraries; files are whole."""

import json
import os
import pickle
import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from child import in_child
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR
from mmengine.runner.checkpoint import CheckpointLoader

from mmnfn.engine import checkpoint as engine
from mmnfn.engine.checkpoint import (
    WholeFileBackend,
    atomic_save,
    backbone_meta,
    export_checkpoint,
    export_random,
    literal_config,
    read_checkpoint,
)

ROOT = Path(__file__).resolve().parents[2]
MICRO = ROOT / 'configs/_base_/backbones/swin-micro.py'
WEIGHTS = {'backbone.a': torch.arange(6.0).view(2, 3), 'backbone.b': torch.ones(2, dtype=torch.int64)}
both_formats = pytest.mark.parametrize('new_format', [True, False], ids=['zip', 'legacy'])


def save(content, path, new_format=True):
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    return path


def write(path, data):
    path.write_bytes(data)
    return path


def assert_weights(checkpoint):
    assert list(checkpoint.state_dict) == list(WEIGHTS)
    for key, value in WEIGHTS.items():
        assert torch.equal(checkpoint.state_dict[key], value) and checkpoint.state_dict[key].dtype == value.dtype


@pytest.mark.parametrize('container', ['state_dict', 'model', ''])
def test_weights_are_found_in_every_container(tmp_path, container):
    content = {container: WEIGHTS, 'epoch': 3} if container else WEIGHTS
    checkpoint = read_checkpoint(save(content, tmp_path / 'a.pth'))
    assert_weights(checkpoint)
    assert checkpoint.container == container and checkpoint.meta == {}


@both_formats
def test_training_checkpoints_are_read_with_their_metadata(tmp_path, new_format):
    """Histories, NumPy numbers, paths, parameters, and a schedule that keeps one of its methods."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    scheduler = OneCycleLR(torch.optim.SGD([parameter], lr=1.0), eta_max=1.0, total_steps=4)
    meta = dict(epoch=2, cfg='model = dict()', seed=np.int64(3), dataset_meta=dict(classes=('cat', 'dog')))
    content = dict(
        meta=meta,
        state_dict=WEIGHTS,
        message_hub=dict(loss=HistoryBuffer([1.0, 2.0], [1, 1]), lr=np.float64(0.1), rng=np.arange(3), out=Path('a')),
        milestones=Counter([8, 11]),  # of MultiStepLR
        optimizer=dict(state={0: dict(exp_avg=parameter)}),
        param_schedulers=[scheduler.state_dict()],
    )
    checkpoint = read_checkpoint(save(content, tmp_path / 'epoch_2.pth', new_format))
    assert_weights(checkpoint)
    assert checkpoint.meta == meta


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@both_formats
def test_code_is_not_run_and_refused_by_name(tmp_path, new_format):
    trace = str(tmp_path / 'trace')
    path = save(dict(state_dict=WEIGHTS, x=Calls(os.mkdir, trace)), tmp_path / 'evil.pth', new_format)
    with pytest.raises(ValueError, match=r'ckpt: .*evil.pth would import posix.mkdir when it is opened.*weights alone'):
        read_checkpoint(path, 'ckpt')
    assert not os.path.exists(trace)
    torch.load(path, weights_only=False)
    assert os.path.exists(trace), 'the file does what it is refused for'


@pytest.mark.parametrize('name', ['__init__', '__globals__'])
def test_getattr_reaches_the_methods_of_histories_only(tmp_path, name):
    path = save(dict(state_dict=WEIGHTS, x=Calls(getattr, HistoryBuffer, name)), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='would import builtins.getattr'):
        read_checkpoint(path)


def test_every_flipped_byte_is_seen(tmp_path):
    """An archive has checksums, which torch.load alone passes over: it is refused, or has the same weights."""
    path = save(dict(state_dict=WEIGHTS, meta=dict(epoch=2)), tmp_path / 'a.pth')
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            assert_weights(read_checkpoint(path))
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 20


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="X: there is no file '.*nothing.pth'"):
        read_checkpoint(tmp_path / 'nothing.pth', 'X')
    whole = save(WEIGHTS, tmp_path / 'whole.pth').read_bytes()
    for path, words in {
        write(tmp_path / 'empty.pth', b''): 'is no checkpoint, or a damaged one .it is cut off',
        write(tmp_path / 'page.pth', b'<!DOCTYPE html>'): 'web page',
        write(tmp_path / 'lfs.pth', b'version https://git-lfs.github.com/spec/v1'): 'git lfs pull',
        write(tmp_path / 'cut.pth', whole[: len(whole) // 2]): 'it is cut off',
        write(tmp_path / 'noise.pth', bytes(range(200, 256))): 'or a damaged one',
        write(tmp_path / 'cut.safetensors', (99).to_bytes(8, 'little') + b'{"a":'): 'or a damaged one',
        save([1, 2], tmp_path / 'list.pth'): 'no state_dict of tensors .found nothing',
        save(dict(epoch=1), tmp_path / 'epoch.pth'): "no state_dict of tensors .found 'epoch': int",
        save(dict(state_dict=dict(WEIGHTS, c=1)), tmp_path / 'odd.pth'): "found 'c': int",
    }.items():
        with pytest.raises(ValueError, match=f'X: .*{path.name} .*{words}'):
            read_checkpoint(path, 'X')


def test_weights_that_are_not_finite_are_refused_but_for_attention_masks(tmp_path):
    mask = torch.full((2, 2), -float('inf'))
    read_checkpoint(save(dict(state_dict={**WEIGHTS, 'text.attn_mask': mask}), tmp_path / 'a.pth'))
    spoiled = {**WEIGHTS, 'backbone.c': torch.tensor([1.0, float('nan')]), 'text.attn_mask': mask}
    with pytest.raises(ValueError, match='CHECKPOINT: .*a.pth has NaN or infinite numbers in 1 of 4 tensors, backb'):
        read_checkpoint(save(dict(state_dict=spoiled), tmp_path / 'a.pth'))


def test_a_web_address_is_downloaded_once_to_where_mmengine_looks(tmp_path, monkeypatch):
    url, downloads = 'https://example.org/models/swin.pth', []
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda url, to: downloads.append(url) or save(WEIGHTS, to))
    for _ in range(2):
        assert_weights(read_checkpoint(engine.local_copy(url)))
    assert list(CheckpointLoader.load_checkpoint(url, map_location='cpu')) == list(WEIGHTS) and downloads == [url]
    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    with pytest.raises(ValueError, match='other.pth cannot be downloaded: .*path of the file'):
        engine.local_copy('http://127.0.0.1:9/other.pth')
    assert engine.local_copy('open-mmlab://resnet50') is None
    assert engine.local_copy('work_dirs/a.pth') == 'work_dirs/a.pth'


def test_safetensors_are_written_and_read_with_metadata_also_by_mmengine(tmp_path):
    path = str(tmp_path / 'a.safetensors')
    atomic_save(dict(state_dict=WEIGHTS, meta=dict(epoch=2, subjects=[1])), path)
    checkpoint = read_checkpoint(path)
    assert_weights(checkpoint)
    assert checkpoint.meta == dict(epoch=2, subjects=[1])
    content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    assert all(torch.equal(value, WEIGHTS[key]) for key, value in content['state_dict'].items())


CONTENT = dict(state_dict=dict(a=torch.zeros(5000)), meta={})
WRITERS = {
    'a.pth': lambda path: atomic_save(CONTENT, path),
    'a.safetensors': lambda path: atomic_save(CONTENT, path),
    'epoch_1.pth': lambda path: WholeFileBackend().put(pickle.dumps(CONTENT), path),
}


@pytest.mark.parametrize('name', WRITERS)
def test_a_full_disk_leaves_the_old_file_and_is_named(tmp_path, name):
    def limited(path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        WRITERS[name](path)

    path = tmp_path / 'folder' / name
    for before in ([], [b'old']):
        for content in before:
            path.write_bytes(content)
        error, ended = in_child(limited, path)
        assert ended == 0 and isinstance(error, OSError) and str(path) in str(error), error
        assert [file.read_bytes() for file in path.parent.iterdir()] == before
    WRITERS[name](path)
    assert list(path.parent.iterdir()) == [path] and path.stat().st_size > 20000


def test_metadata_are_plain_and_complete():
    backbone = dict(type='mmpretrain.SwinTransformer', arch=dict(depths=(1, 2)), init_cfg=dict(type='Pretrained'))
    cfg = Config(
        dict(
            model=dict(type='Wrapper', module=dict(backbone=backbone)),
            train_dataloader=dict(dataset=dict(dataset=dict(subjects=('subj01', 'subj02'), split='all'))),
        )
    )
    meta = backbone_meta(cfg, seed=np.int64(3), score=np.float32(0.5), path=ROOT, nothing=None, flag=True)
    assert json.loads(json.dumps(meta)) == meta
    assert meta['backbone'] == dict(type='mmpretrain.SwinTransformer', arch=dict(depths=[1, 2]))
    assert (meta['subjects'], meta['split']) == (['subj01', 'subj02'], 'all')
    assert meta['seed'] == 3 and type(meta['seed']) is int and meta['score'] == 0.5 and meta['flag'] is True
    assert meta['versions']['torch'] == str(torch.__version__) and 'mmengine' in meta['versions']
    assert Config.fromstring(meta['config'], '.py').model.type == 'Wrapper'


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_the_config_in_a_checkpoint_is_understood_and_not_run(tmp_path, suffix):
    """MMEngine would read the text by running it."""
    trace = tmp_path / 'trace'
    text = f"""
import os
os.mkdir({str(trace)!r})
model = dict(type='A', backbone=dict(type='B', arch={{'x': [1, -2.5, (None, True)]}}, drop=-inf))
head = dict(x=os.mkdir({str(trace)!r}))
train_dataloader = dict(dataset=dict(subjects=[1, 2]))
"""
    save(dict(state_dict={'backbone.a': torch.ones(2)}, meta=dict(cfg=text, epoch=3)), tmp_path / 'evil.pth')
    out = tmp_path / f'out.{suffix}'
    meta = export_checkpoint(str(tmp_path / 'evil.pth'), str(out))
    assert not trace.exists() and meta['config'] == text and 'head' not in literal_config(text)
    assert meta['backbone'] == dict(type='B', arch=dict(x=[1, -2.5, [None, True]]), drop=-float('inf'))
    assert meta['subjects'] == [1, 2] and meta['epoch'] == 3 and read_checkpoint(out).meta == meta


def test_literal_reading_gives_what_mmengine_reads():
    cfg = Config.fromfile(ROOT / 'configs/nfn/pretrain_nsd.py')
    settings = literal_config(cfg.pretty_text)
    assert settings == Config.fromstring(cfg.pretty_text, '.py').to_dict()
    assert settings['model']['backbone']['arch'] == 'small'


def test_random_weights_follow_the_seed_and_have_no_subjects(tmp_path):
    cfg = Config.fromfile(MICRO)
    cfg.model = dict(backbone=dict(cfg.backbone_micro, init_cfg=dict(type='Pretrained', checkpoint='nothing.pth')))
    cfg.train_dataloader = dict(dataset=dict(subjects=[1], split='all'))
    states = []
    for seed in (3, 3, 4):
        meta = export_random(cfg, tmp_path / 'random.pth', seed)
        assert (meta['seed'], meta['subjects'], meta['backbone']['arch']['embed_dims']) == (seed, [], 32)
        states.append(read_checkpoint(tmp_path / 'random.pth').state_dict)
    same, other = ([torch.equal(value, states[0][key]) for key, value in state.items()] for state in states[1:])
    assert all(same) and not all(other)
    with pytest.raises(ValueError, match='--random.*no backbone'):
        export_random(Config(dict(model=dict(type='Toy'))), 'out.pth')
