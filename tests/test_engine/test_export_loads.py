"""One export loads in all three libraries: every weight arrives, and only norms of unused stages are missing."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmnfn.engine import export

ROOT = Path(__file__).resolve().parents[2]
MICRO = ROOT / 'configs/_base_/backbones/swin-micro.py'


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Path and state dict of an export of the micro Swin as pretraining has it, with the last stage only."""
    cfg = Config.fromfile(MICRO)
    cfg.default_scope = 'mmpretrain'
    cfg.model = dict(type='ImageClassifier', backbone=cfg.backbone_micro)
    cfg.train_dataloader = dict(dataset=dict(subjects=[1], split='all'))
    path = str(tmp_path_factory.mktemp('export') / 'backbone.pth')
    meta = export.export_random(cfg, path, seed=3)
    assert meta['backbone']['arch']['embed_dims'] == 32 and meta['seed'] == 3
    assert (meta['subjects'], meta['split']) == ([], None), 'which random weights have not been trained on'
    return path, torch.load(path, weights_only=True)['state_dict']


def build(cfg):
    """Model of a config with its init_cfg applied, in the config's scope."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
    return model


def assert_loaded(model, state, missing):
    """The backbone has all of the export's values; ``missing`` are the first key parts that the export lacks."""
    own = {f'backbone.{key}': value for key, value in model.backbone.state_dict().items()}
    for key, value in state.items():
        assert torch.equal(own[key], value), key
    assert {key.split('.')[1] for key in own if key not in state} == missing


@pytest.mark.parametrize(
    'library, path',
    [('mmdet', 'configs/demo/mask-rcnn_micro_fpn_demo.py'), ('mmseg', 'configs/demo/upernet_micro_demo.py')],
)
def test_export_loads_downstream(library, path, exported):
    pytest.importorskip(library)
    cfg = Config.fromfile(ROOT / path)
    cfg.model.backbone.init_cfg.checkpoint = exported[0]
    assert cfg.model.backbone.init_cfg.prefix == 'backbone.'
    assert_loaded(build(cfg), exported[1], {'norm0', 'norm1', 'norm2'})


def test_export_loads_in_mmpretrain(exported):
    cfg = Config.fromfile(MICRO)
    backbone = dict(cfg.backbone_micro, init_cfg=dict(type='Pretrained', checkpoint=exported[0], prefix='backbone.'))
    cfg.default_scope = 'mmpretrain'
    cfg.model = dict(type='ImageClassifier', backbone=backbone)
    assert_loaded(build(cfg), exported[1], set())


def test_random_weights_follow_the_seed_and_leave_torchs_generator_alone(exported, tmp_path):
    cfg = Config.fromfile(MICRO)
    cfg.model = dict(backbone=dict(cfg.backbone_micro, init_cfg=dict(type='Pretrained', checkpoint='nothing.pth')))
    states = []
    for seed in (3, 4):
        path = str(tmp_path / f'{seed}.pth')
        torch.manual_seed(0)
        export.export_random(cfg, path, seed)
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))
        states.append(torch.load(path, weights_only=True)['state_dict'])
    assert all(torch.equal(value, exported[1][key]) for key, value in states[0].items())
    key = 'backbone.patch_embed.projection.weight'
    assert not torch.equal(states[0][key], states[1][key])


def test_config_without_backbone_is_an_error():
    with pytest.raises(ValueError, match='--random.*no backbone'):
        export.export_random(Config(dict(model=dict(type='Toy'))), 'out.pth')
