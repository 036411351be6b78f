"""Every way in which a backbone can fail to load is seen, and named with what helps."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmnfn.engine.checkpoint import Checkpoint, read_checkpoint
from mmnfn.engine.load_audit import audit_load, check_load

pytest.importorskip('mmpretrain')
ARCH = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4])
SWIN = dict(type='mmpretrain.SwinTransformer', arch=ARCH, img_size=64, window_size=4, pad_small_map=True)
CONVNEXT = dict(type='mmpretrain.ConvNeXt', arch=dict(depths=[1, 1, 2, 1], channels=[4, 8, 8, 8]))
MAPS = dict(out_indices=(0, 1, 2, 3))


def detector(library):
    """Swin of MMDetection or MMSegmentation of the same size; its loader is its own."""
    pytest.importorskip(library)
    return dict(type=f'{library}.SwinTransformer', pretrain_img_size=64, window_size=4, **ARCH)


def weights(backbone, seed=0):
    """State dict of a backbone; every value is its own, so that nothing is equal by chance."""
    import mmpretrain.models  # noqa: F401

    generator = torch.Generator().manual_seed(seed)
    state = MODELS.build(backbone).state_dict()
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in state.items()
    }


def prefixed(state, prefix='backbone.'):
    return {prefix + key: value for key, value in state.items()}


def microsoft(state):
    """The same weights under the names, and in the order of patch merging, of Microsoft's Swin."""
    renamed = {}
    for key, value in state.items():
        if 'downsample' in key:  # OpenMMLab merges by unfold, Microsoft concatenates four neighbours
            value = value.reshape(*value.shape[:-1], -1, 4)[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2)
        for new, old in (
            ('layers', 'stages'),
            ('patch_embed.proj', 'patch_embed.projection'),
            ('attn', 'attn.w_msa'),
            ('mlp.fc1', 'ffn.layers.0.0'),
            ('mlp.fc2', 'ffn.layers.1'),
        ):
            key = re.sub(rf'\b{re.escape(old)}\b', new, key)
        if not key.startswith('norm3'):
            renamed[key] = value
    return dict(model=dict(renamed, **{'norm.weight': torch.ones(64), 'head.weight': torch.ones(2, 64)}))


def check(tmp_path, backbone, content, prefix=None):
    """Audit of loading ``content`` by the ``init_cfg`` of ``backbone``."""
    torch.save(content, tmp_path / 'file.pth')
    init_cfg = dict(type='Pretrained', checkpoint='elsewhere.pth', **({} if prefix is None else dict(prefix=prefix)))
    if backbone['type'].startswith('mmdet'):
        init_cfg.pop('prefix', None)  # MMDetection's Swin takes no notice of it
    model = dict(type='mmpretrain.ImageClassifier', backbone=dict(backbone, init_cfg=init_cfg))
    audits = check_load(Config(dict(model=model, default_scope='mmpretrain')), str(tmp_path / 'file.pth'))
    assert [audit.name for audit in audits] == ['backbone']
    return audits[0]


def assert_full(audit):
    assert audit.problem is None
    loaded, wanted = audit.coverage()
    assert loaded == wanted == len([row for row in audit.rows if row.status != 'unused stage']) > 20


class TestSwin:
    def test_export_into_mmpretrain_class(self, tmp_path):
        state = weights(dict(SWIN, out_indices=(3,)))
        audit = check(tmp_path, dict(SWIN, **MAPS), dict(state_dict=prefixed(state)), 'backbone.')
        assert_full(audit)
        assert {row.key for row in audit.rows if row.status == 'unused stage'} == {
            f'norm{i}.{kind}' for i in range(3) for kind in ('weight', 'bias')
        }
        assert all(row.source == f'backbone.{row.key}' for row in audit.rows if row.status == 'loaded')

    @pytest.mark.parametrize('library, prefix', [('mmdet', 'backbone.'), ('mmseg', 'backbone.'), ('mmseg', '')])
    def test_own_loaders_take_the_names_of_openmmlab(self, tmp_path, library, prefix):
        state = prefixed(weights(dict(SWIN, **MAPS)), prefix)
        assert_full(check(tmp_path, detector(library), dict(state_dict=state)))

    def test_conversion_of_what_needs_none(self, tmp_path):
        """Everything but the patch embedding would load, in silence."""
        state = weights(dict(SWIN, **MAPS))
        audit = check(tmp_path, dict(detector('mmdet'), convert_weights=True), dict(state_dict=state))
        assert 'Set convert_weights=False' in audit.problem

    def test_another_prefix_into_mmdetections_loader(self, tmp_path):
        audit = check(tmp_path, detector('mmdet'), dict(state_dict=weights(dict(SWIN, **MAPS))))
        assert "in the file they begin with ''. Use backbone.type='mmpretrain.SwinTransformer' with" in audit.problem

    def test_microsoft_format(self, tmp_path):
        content = microsoft(weights(SWIN))
        audit = check(tmp_path, dict(detector('mmdet'), convert_weights=True), content)
        assert_full(audit)
        sources = {row.key: row.source for row in audit.rows}
        assert sources['stages.0.blocks.0.attn.w_msa.qkv.weight'] == 'layers.0.blocks.0.attn.qkv.weight'
        assert 'Set convert_weights=True' in check(tmp_path, detector('mmdet'), content).problem
        assert "'mmdet.SwinTransformer' with convert_weights=True" in check(tmp_path, SWIN, content).problem


class TestViT:
    def test_another_image_size(self, tmp_path):
        """MMPretrain's class interpolates the position embedding."""
        small, large = (
            dict(
                type='mmpretrain.VisionTransformer',
                arch=dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=8),
                img_size=size,
                patch_size=16,
                out_type='featmap',
            )
            for size in (32, 64)
        )
        audit = check(tmp_path, large, dict(state_dict=prefixed(weights(small))), 'backbone.')
        assert_full(audit)
        assert [(row.key, row.file_shape[1], row.shape[1]) for row in audit.rows if row.status == 'resized'] == [
            ('pos_embed', 5, 17)
        ]

    def test_another_image_size_where_nothing_resizes(self, tmp_path):
        """MMSegmentation's class keeps its own random embedding, and says so in the log at most."""
        mmseg = pytest.importorskip('mmseg.models')
        small, large = (
            mmseg.VisionTransformer(
                img_size=size, patch_size=16, embed_dims=8, num_layers=1, num_heads=2, out_indices=0
            )
            for size in (32, 64)
        )
        torch.save(dict(state_dict=small.state_dict()), tmp_path / 'file.pth')
        for loaded in (False, True):
            audit = audit_load('backbone', large, read_checkpoint(tmp_path / 'file.pth'), loaded=loaded)
            assert 'pos_embed is (1, 5, 8) there and (1, 17, 8) here' in audit.problem


class TestPrefix:
    @pytest.mark.parametrize(
        'there, given, advice',
        [
            ('backbone.', None, "prefix given is ''. Give init_cfg.prefix='backbone.'"),
            ('', 'backbone.', 'Give no prefix in init_cfg'),
            ('tower.image.', 'backbone.', "Give init_cfg.prefix='tower.image.'"),
            ('tower.image.', 'tower.image.', None),
            ('module.', None, None),  # of all GPUs
        ],
    )
    def test_a_wrong_one_is_named(self, tmp_path, there, given, advice):
        audit = check(tmp_path, SWIN, dict(state_dict=prefixed(weights(SWIN), there)), given)
        if advice is None:
            assert_full(audit)
        else:
            assert f'under {there!r} in the file' in audit.problem and advice in audit.problem

    def test_a_declared_prefix_is_not_second_guessed(self, tmp_path):
        state = {**prefixed(weights(SWIN, 1), 'momentum.'), **prefixed(weights(SWIN), 'backbone.')}
        for prefix in ('momentum.', 'backbone.'):
            audit = check(tmp_path, SWIN, state, prefix)
            assert_full(audit)
            assert {row.source.split('.')[0] + '.' for row in audit.rows} == {prefix}


class TestArchitecture:
    def test_width(self, tmp_path):
        other = dict(SWIN, arch=dict(ARCH, embed_dims=16))
        content = dict(state_dict=prefixed(weights(other)), meta=dict(backbone=dict(type='X', arch='wide')))
        audit = check(tmp_path, SWIN, content, 'backbone.')
        assert 'patch_embed.projection.weight is (16, 3, 4, 4) there and (8, 3, 4, 4) here' in audit.problem
        assert "written by X, arch='wide'" in audit.problem

    @pytest.mark.parametrize('here, there', [([1, 1, 2, 1], [1, 1, 4, 1]), ([1, 1, 4, 1], [1, 1, 2, 1])])
    def test_depth(self, tmp_path, here, there):
        """Also where every weight of the model is in the file: a tiny model takes the blocks of a small one."""
        content = dict(state_dict=prefixed(weights(dict(SWIN, arch=dict(ARCH, depths=there)))))
        audit = check(tmp_path, dict(SWIN, arch=dict(ARCH, depths=here)), content, 'backbone.')
        assert f'stages.2 has {there[2]} blocks there and {here[2]} here' in audit.problem
        assert ('lacks' in audit.problem) == (here[2] > there[2]) == (not audit.left_over)

    def test_another_kind(self, tmp_path):
        audit = check(tmp_path, CONVNEXT, dict(state_dict={'layer1.0.conv1.weight': torch.ones(1)}))
        assert 'no key of the file belongs to ConvNeXt; the file has layer1.0.conv1.weight' in audit.problem

    def test_the_last_norm_is_not_of_an_unused_stage(self, tmp_path):
        state = {key: value for key, value in prefixed(weights(SWIN)).items() if 'norm3' not in key}
        audit = check(tmp_path, dict(SWIN, **MAPS), dict(state_dict=state), 'backbone.')
        assert 'it lacks 8 tensors (norm0.weight' in audit.problem
        state['backbone.norm2.weight'] = state['backbone.norm2.bias'] = torch.ones(32)
        audit = check(tmp_path, dict(SWIN, **MAPS), dict(state_dict=state), 'backbone.')
        assert 'it lacks 2 tensors (norm3.weight, norm3.bias)' in audit.problem

    def test_weights_under_model(self, tmp_path):
        audit = check(tmp_path, CONVNEXT, dict(model=weights(CONVNEXT)))
        assert "are under 'model', and MMEngine reads 'state_dict' only" in audit.problem


def test_values_are_compared_and_not_keys():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    state = {key: value.clone() for key, value in module.state_dict().items() if 'num_batches' not in key}
    checkpoint = Checkpoint('f.pth', state, {}, 'state_dict')
    assert audit_load('it', module, checkpoint).problem is None
    state['1.running_var'][1] += 1e-6
    audit = audit_load('it', module, checkpoint)
    assert [row.key for row in audit.rows if row.status != 'loaded'] == ['1.running_var'] and audit.coverage() == (5, 6)
    assert 'has 1 tensors that fit, and after loading the it has other values (1.running_var)' in audit.problem


def test_table_has_a_line_for_every_tensor_and_says_what_is_left_on_either_side(tmp_path):
    state = prefixed(weights(SWIN))
    state.pop('backbone.norm3.bias')
    state.update({'backbone.norm3.extra': torch.ones(1), 'head.fc.weight': torch.ones(1)})
    audit = check(tmp_path, SWIN, dict(state_dict=state), 'backbone.')
    lines = [re.sub(' +', ' ', line) for line in audit.table().splitlines()]
    qkv = 'stages.2.blocks.1.attn.w_msa.qkv.weight'
    assert f'{qkv} <- backbone.{qkv} <- (96, 32) in the file' in lines
    assert 'norm3.bias <- - <- (64,) missing' in lines
    assert sum('<-' in line for line in lines) == len(audit.rows)
    assert 'in the file and without a place in the backbone: backbone.norm3.extra' in lines
    assert lines[-1].startswith('backbone: 0 of ')
