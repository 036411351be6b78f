"""What is published loads by name, by MMPretrain's hub and by whoever has PyTorch, and says where it is from."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config

import mmnfn
from mmnfn.apis import get_model
from mmnfn.apis.publish import publish

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/demo/pretrain.py'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A training checkpoint of the demo's model and its folder, as a run of that name leaves it."""
    folder = tmp_path_factory.mktemp('work') / 'my_run'
    folder.mkdir()
    torch.manual_seed(0)
    model = get_model(CONFIG)
    meta = dict(
        epoch=10,
        iter=500,
        seed=3,
        time='20261124_101010',
        cfg=Config.fromfile(CONFIG).pretty_text + "author = 'Gr\u00fcn'\n",
        mmnfn=dict(subjects=[1, 2, 3], versions=dict(torch='2'), revision='abc'),
    )
    torch.save(dict(state_dict=model.state_dict(), meta=meta, optimizer=dict(big=torch.ones(1000))), folder / 'e.pth')
    return folder / 'e.pth', model


def test_files_and_what_they_say(trained, tmp_path):
    weights, config, index = publish(str(trained[0]), str(tmp_path / 'out'))
    match = re.fullmatch(r'my_run_(\d{8})-([0-9a-f]{8})\.pth', weights.name)
    assert match[2] == hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    content = torch.load(weights, weights_only=True)
    assert set(content) == {'state_dict', 'meta'}, 'no optimizer'
    assert all(torch.equal(value, content['state_dict'][key]) for key, value in trained[1].state_dict().items())
    meta = content['meta']
    assert (meta['subjects'], meta['seed'], meta['epoch'], meta['revision']) == ([1, 2, 3], 3, 10, 'abc')
    assert meta['versions'] == dict(torch='2') and meta['backbone']['type'] == 'mmpretrain.SwinTransformer'
    assert Config.fromfile(config).model == Config.fromfile(CONFIG).model
    assert "author = 'Gr\u00fcn'" in config.read_text('utf-8')
    (entry,) = yaml.safe_load(index.read_text())['Models']
    assert entry['Name'] == 'my_run' and entry['Weights'] == weights.name
    assert entry['Metadata'] == {
        'Training Data': 'Natural Scenes Dataset',
        'Epochs': 10,
        'Seed': 3,
        'NSD Subjects': [1, 2, 3],
        'Revision': 'abc',
    }
    assert sorted((tmp_path / 'out').iterdir()) == sorted([weights, config, index])


def test_by_name(trained, tmp_path):
    publish(str(trained[0]), str(tmp_path), name='brains')
    publish(str(trained[0]), str(tmp_path), name='other')
    weights, _, index = publish(str(trained[0]), str(tmp_path), name='brains')
    assert [m['Name'] for m in yaml.safe_load(index.read_text())['Models']] == ['other', 'brains']
    model = mmnfn.get_model('brains', index=index)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in trained[1].state_dict().items())
    with pytest.raises(ValueError, match="there is no model 'brain' in .*it has brains"):
        get_model('brain', index=index)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match='is damaged: its digest is'):
        get_model('brains', index=index)


def test_shipped_models_have_no_weights_yet():
    with pytest.raises(ValueError, match=r"no weights of 'pretrain_nsd' have been published.*configs/nfn/pretrain_nsd"):
        get_model('pretrain_nsd')


@pytest.mark.parametrize('init, subjects', [('imagenet', None), ('nfn', [1, 2, 3, 4, 5, 6, 7])])
def test_a_detector_says_what_it_was_trained_on(tmp_path, monkeypatch, init, subjects):
    """Its subjects are those of the backbone's pretraining, where that is still there."""
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(ROOT / f'configs/mask_rcnn/mask-rcnn_{init}-swin-s_fpn_1x_coco.py')
    source = cfg.model.backbone.init_cfg.get('checkpoint')
    if subjects:
        Path(source).parent.mkdir(parents=True)
        torch.save(dict(state_dict=dict(a=torch.ones(1)), meta=dict(subjects=subjects)), source)
    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta=dict(cfg=cfg.pretty_text, epoch=12)), 'e.pth')
    (entry,) = yaml.safe_load(publish('e.pth', 'out', name='detector')[2].read_text())['Models']
    expected = {'Training Data': 'COCO', 'Epochs': 12, 'Backbone': source, 'NSD Subjects': subjects}
    assert entry['Metadata'] == {key: value for key, value in expected.items() if value}
    assert ('In Collection' in entry) == bool(subjects)


def test_mmpretrain_lists_what_is_published_and_what_is_shipped(trained, tmp_path):
    from mmpretrain.apis import ModelHub, list_models

    weights, _, index = publish(str(trained[0]), str(tmp_path), name='published_brains')
    before = dict(ModelHub._models_dict)
    try:
        ModelHub.register_model_index(index)
        ModelHub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
        assert list_models('published_brains') == ['published_brains']
        shipped = {*list_models('pretrain_nsd*'), *list_models('adapt_subject*')}
        assert shipped == {p.stem for p in (ROOT / 'configs/nfn').glob('*.py')}
        metainfo = ModelHub.get('published_brains')
        assert metainfo.weights == weights.name and metainfo.config.model.type == 'mmnfn.NeuroFusionNet'
    finally:
        ModelHub._models_dict.clear()
        ModelHub._models_dict.update(before)


def test_bad_input_is_named_and_nothing_written(trained, tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(ValueError, match="--name: 'a/b' is no name for a file"):
        publish(str(trained[0]), str(out), name='a/b')
    torch.save(dict(state_dict={'a': torch.ones(1)}), tmp_path / 'bare.pth')
    with pytest.raises(ValueError, match='bare.pth does not say which config it is of'):
        publish(str(tmp_path / 'bare.pth'), str(out))
    assert not out.exists()
