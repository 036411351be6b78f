"""Every shipped config is parsed, and its model, hooks, schedule and optimizer are built."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, TRANSFORMS, VISUALIZERS, DefaultScope
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
# Other rows of a table differ from the nfn row only in the initialisation, and 3x from 1x in data and schedule, see
# test_config_matrix.py, which also trains the rows.
ROWS = [path for path in SHIPPED if path.parent.name in ('linear', 'mask_rcnn', 'upernet')]
CONFIGS = [
    path
    for path in SHIPPED
    if path not in ROWS or ('_3x_' not in path.name and re.search(r'nfn-(frozen-)?(swin|convnext)-s', path.name))
]
DOWNSTREAM = [path for path in CONFIGS if path in ROWS or 'micro' in path.name]
FROZEN = [path for path in DOWNSTREAM if 'frozen' in path.name or 'linear' in path.name]
# Library of the configs whose path has that name; without it they are skipped before they are parsed.
LIBRARY = {'mask_rcnn': 'mmdet', 'mask-rcnn': 'mmdet', 'upernet': 'mmseg', 'linear': 'mmseg', 'multilabel': 'mmdet'}


def name(path):
    return str(path.relative_to(ROOT / 'configs'))


def load(path):
    """Read a config, or skip the test if its library is not installed."""
    for key, library in LIBRARY.items():
        if key in name(path):
            pytest.importorskip(library)
    return Config.fromfile(path)


@pytest.fixture(scope='module')
def built(request):
    """Build the model of a config once for all of its tests."""
    cfg = load(request.param)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return request.param, cfg, MODELS.build(cfg.model)


def each(configs):
    """Run a test for each of these configs."""
    return pytest.mark.parametrize('built', configs, ids=name, indirect=True, scope='module')


@each(CONFIGS)
def test_config_builds(built):
    _, cfg, model = built
    assert cfg.default_scope in ('mmpretrain', 'mmdet', 'mmseg')
    assert 'mmnfn' in cfg.custom_imports['imports'] and not cfg.custom_imports['allow_failed_imports']
    assert isinstance(model.backbone, nn.Module)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        if 'visualizer' in cfg:
            VISUALIZERS.build({'name': 'visualizer', **cfg.visualizer, 'vis_backends': None})
        for hook in [*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])]:
            HOOKS.build(hook)
        for loader in filter(None, (cfg.get(f'{kind}_dataloader') for kind in ('train', 'val', 'test'))):
            for transform in loader.dataset.get('pipeline', []):
                TRANSFORMS.build(transform)
    if cfg.get('train_cfg'):
        assert cfg.auto_scale_lr['base_batch_size'] > 0


@each(DOWNSTREAM)
def test_downstream_backbone_takes_the_export(built):
    """Its init_cfg names the file that a pretraining config writes; only norms of unused stages are missing in it."""
    _, cfg, model = built
    backbone = cfg.model.backbone
    assert backbone.type.startswith('mmpretrain.')
    assert list(backbone.out_indices) == [0, 1, 2, 3]
    assert backbone.init_cfg.type == 'Pretrained' and backbone.init_cfg.prefix == 'backbone.'
    checkpoint = Path(backbone.init_cfg.checkpoint)
    assert checkpoint.name == 'backbone_latest.pth' and checkpoint.parent.parent == Path('work_dirs')
    pretraining = [path for path in CONFIGS if path.stem == checkpoint.parent.name]
    assert len(pretraining) == 1, f'one config writes to {checkpoint.parent}'
    source = Config.fromfile(pretraining[0]).model.backbone
    pretrained = MODELS.build(source).state_dict()
    own = model.backbone.state_dict()
    assert {key: own[key].shape for key in pretrained} == {key: value.shape for key, value in pretrained.items()}
    unused = {f'norm{stage}' for stage in range(4) if stage not in source.out_indices}
    assert {key.split('.')[0] for key in own if key not in pretrained} == unused


@each(FROZEN)
def test_frozen_backbone_has_nothing_to_train_and_drops_no_path(built):
    _, cfg, model = built
    backbone = model.train().backbone
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    image = torch.randn(4, 3, 64, 64)
    assert all(map(torch.equal, backbone(image), backbone(image)))


@each([path for path in DOWNSTREAM if path.parent.name != 'demo' and path not in FROZEN])
def test_recipe_has_every_parameter_once_and_spares_norms_the_decay(built):
    _, cfg, model = built
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = {names[id(parameter)]: group for group in optimizer.param_groups for parameter in group['params']}
    assert len(groups) == len(names)
    assert {groups[f'backbone.norm3.{kind}']['weight_decay'] for kind in ('weight', 'bias')} == {0}
    swin = 'Swin' in cfg.model.backbone.type
    first = groups[f'backbone.{"patch_embed.projection" if swin else "downsample_layers.0.0"}.weight']
    assert first['weight_decay'] == cfg.optim_wrapper.optimizer.weight_decay
    # Swin has one learning rate, ConvNeXt smaller ones towards the input.
    lr = cfg.optim_wrapper.optimizer.lr
    assert first['lr'] == lr if swin else first['lr'] < lr
