"""The whole model: losses, training, predictions, and no leak between the towers."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from small_configs import ENCODER, ROI_NAMES

from mmnfn.losses import contrastive_loss, fmri_guided_loss
from mmnfn.models import NeuroFusionNet
from mmnfn.structures import SubjectGeometry

SWIN = dict(
    type='mmpretrain.SwinTransformer',
    arch=dict(embed_dims=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
    img_size=64,
    window_size=4,
    pad_small_map=True,
    drop_path_rate=0.0,
)
CONVNEXT = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[1, 1, 2, 1], channels=[24, 48, 96, 192]),
    gap_before_final_norm=False,
    drop_path_rate=0.0,
)


def config(**kwargs):
    model = dict(
        type='mmnfn.NeuroFusionNet',
        backbone=SWIN,
        neck=dict(in_channels=192),
        fmri_encoder=ENCODER,
        contrastive=dict(),
        guidance=dict(),
        fusion=dict(embed_dims=32),
    )
    return copy.deepcopy({**model, **kwargs})


def build(**kwargs):
    torch.manual_seed(0)
    model = MMPRETRAIN_MODELS.build(config(**kwargs))
    model.init_weights()
    return model


def batch(size=8, sizes=(90, 31, 50)):
    generator = torch.Generator().manual_seed(1)
    coordinates = 30 * torch.randn(sum(sizes), 3, generator=generator)
    return dict(
        inputs=torch.randint(0, 256, (size, 3, 64, 64), dtype=torch.uint8, generator=generator),
        responses=torch.randn(size, sum(sizes), generator=generator),
        image_id=torch.arange(size) % (size - 1),  # the last row shows image 0 again
        geometry=SubjectGeometry('subj03', ROI_NAMES, tuple(sizes), coordinates),
    )


@pytest.fixture(scope='module')
def model():
    return build().eval()


@pytest.mark.parametrize('backbone', [SWIN, CONVNEXT], ids=['swin', 'convnext'])
def test_training_steps_lower_the_loss(backbone):
    model, data = build(backbone=backbone, guidance=dict(negatives='roi+batch')).train(), batch()
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=2e-3))
    logs = [model.train_step(data, optimizer) for _ in range(30)]
    names = {'loss', 'loss_con', 'loss_bfg', 'loss_fus', 'temperature', 'batch_top1'}
    assert set(logs[0]) == names | {f'bfg_{roi}' for roi in ROI_NAMES}
    for log in (logs[0], logs[-1]):
        torch.testing.assert_close(sum(log[f'bfg_{roi}'] for roi in ROI_NAMES) / len(ROI_NAMES), log['loss_bfg'])
        torch.testing.assert_close(log['loss'], log['loss_con'] + log['loss_bfg'] + log['loss_fus'])
    assert logs[-1]['loss'] < 0.6 * logs[0]['loss']
    assert logs[-1]['loss_con'] < 0.5 * logs[0]['loss_con']
    assert logs[-1]['batch_top1'] >= 0.75


def towers(model, data):
    data = model.data_preprocessor(data)
    image = model.neck(model.backbone(data['inputs']))
    return image, model.fmri_encoder(data['responses'], data['geometry'])


def test_losses_without_fusion_are_exactly_the_papers_two():
    model, data = build(fusion=None, loss_weight=dict(con=0.5, bfg=2.0)).double().eval(), batch()
    losses = model(**model.data_preprocessor(data), mode='loss')
    assert {name for name in losses if 'loss' in name} == {'loss_con', 'loss_bfg'}
    image, fmri = towers(model, data)
    torch.testing.assert_close(
        losses['loss_con'], 0.5 * contrastive_loss(image.context, fmri.context, losses['temperature'], data['image_id'])
    )
    torch.testing.assert_close(
        losses['loss_bfg'], 2.0 * fmri_guided_loss(image.rois, fmri.rois, model.guidance.temperature(), fmri.present)
    )
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, losses['loss_con'] + losses['loss_bfg'])


@pytest.mark.parametrize('kwargs', [dict(), dict(guidance=None), dict(guidance=None, fusion=None)], ids=str)
def test_every_parameter_takes_part_even_where_rois_are_absent(kwargs):
    """Distributed training without find_unused_parameters depends on it."""
    model = build(**kwargs).train()
    model.parse_losses(model(**model.data_preprocessor(batch(sizes=(90, 0, 50))), mode='loss'))[0].backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize('frozen', [False, True])
def test_frozen_parts_drop_nothing(frozen):
    """Stochastic depth and dropout of both towers are off where only maps train."""
    encoder = dict(ENCODER, adapter={}, drop_rate=0.3, drop_path_rate=0.5)
    backbone = dict(SWIN, drop_path_rate=0.5)
    model = build(backbone=backbone, fmri_encoder=encoder, fusion=None, train_maps_only=frozen).train()
    data = model.data_preprocessor(batch())
    first, second = (model(**data, mode='loss')['loss_con'].item() for _ in range(2))
    assert (first == second) == frozen
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert (trained == ['fmri_encoder.embedding.adapter.maps']) == frozen
    assert model.fmri_encoder.embedding.adapter.trained_subjects.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize('sizes', [(90, 31, 50), (90, 0, 50)])
def test_predictions_are_unit_vectors_of_the_towers_features(model, sizes):
    data = batch(sizes=sizes)
    with torch.no_grad():
        predictions = model.val_step(dict(data, repeat=torch.arange(8)))  # entries it does not know are ignored
    image, fmri = towers(model, data)
    for i, prediction in enumerate(predictions):
        assert prediction.subject == 'subj03' and prediction.image_id == int(data['image_id'][i])
        for name, feature in (
            ('image_embedding', image.context[i]),
            ('fmri_embedding', fmri.context[i]),
            ('image_roi_embeddings', image.rois[i]),
            ('fmri_roi_embeddings', fmri.rois[i]),
        ):
            expected = feature / feature.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            torch.testing.assert_close(prediction.get(name), expected.detach())
        assert prediction.roi_present.tolist() == [size > 0 for size in sizes]
        assert prediction.fused_embedding.shape == (32,)


def test_neither_modality_leaks_into_the_other(model):
    data, other = batch(), batch()
    other['responses'] = torch.randn_like(other['responses'])
    for a, b in zip(model.val_step(data), model.val_step(other)):
        assert torch.equal(a.image_embedding, b.image_embedding)
        assert torch.equal(a.image_roi_embeddings, b.image_roi_embeddings)
        assert not torch.allclose(a.fmri_embedding, b.fmri_embedding)
    other = {**data, 'inputs': 255 - data['inputs']}
    for a, b in zip(model.val_step(data), model.val_step(other)):
        assert torch.equal(a.fmri_embedding, b.fmri_embedding)
        assert torch.equal(a.fmri_roi_embeddings, b.fmri_roi_embeddings)
        assert not torch.allclose(a.image_embedding, b.image_embedding)


def test_images_alone_suffice_for_features(model):
    data = model.data_preprocessor(dict(inputs=batch()['inputs']))
    assert model(**data)[-1].shape == (8, 192, 2, 2)
    for mode in ('loss', 'predict'):
        with pytest.raises(ValueError, match='responses is missing'):
            model(**data, mode=mode)
    with pytest.raises(ValueError, match="'features'"):
        model(**data, mode='features')


def test_autocast_gives_losses_in_full_precision(model):
    data = model.data_preprocessor(batch())
    with torch.no_grad():
        full = model(**data, mode='loss')
        with torch.autocast('cpu', torch.bfloat16):
            losses = model(**data, mode='loss')
    assert losses['loss_con'].dtype == losses['loss_bfg'].dtype == torch.float32
    torch.testing.assert_close(losses['loss_bfg'], full['loss_bfg'], rtol=0.1, atol=0.0)


@pytest.mark.parametrize(
    'kwargs, words',
    [
        (dict(neck=dict(in_channels=192, num_rois=6)), 'neck is for 6 ROIs .*3 roi_names'),
        (dict(neck=dict(in_channels=192, out_dims=25)), 'neck .* width 25, .*out_dims=24'),
        (dict(fusion=dict(in_dims=25)), 'fusion .* width 25, .*out_dims=24'),
        (dict(loss_weight=dict(contrastive=1.0)), "loss_weight .*'contrastive'"),
        (dict(fusion=dict(mask_ratio=0.0)), 'mask_ratio'),
        (dict(fusion=dict(num_layers=0)), 'fusion=None'),
        (dict(train_maps_only=True), 'train_maps_only needs maps'),
    ],
)
def test_parts_that_do_not_fit_are_refused(kwargs, words):
    cfg = config(**kwargs)
    cfg.pop('type')
    with pytest.raises(ValueError, match=words):
        NeuroFusionNet(**cfg)


def test_crops_of_one_photograph_are_no_negatives_of_each_other():
    """Rows 2 and 5 show crops of one photograph; the losses are those of one image shown twice."""
    model, data = build(guidance=dict(negatives='roi+batch'), fusion=None).double().eval(), batch()
    data['image_id'] = torch.arange(8)
    photo_id = torch.tensor([0, 1, 2, 3, 4, 2, 6, 7])
    inputs = model.data_preprocessor(data)
    losses = model(**inputs, photo_id=photo_id, mode='loss')
    twice = model(**dict(inputs, image_id=photo_id), mode='loss')
    torch.testing.assert_close(losses, twice)
    apart = model(**inputs, mode='loss')
    assert apart['loss_con'] > losses['loss_con'] and apart['loss_bfg'] > losses['loss_bfg']
    samples = model(**inputs, photo_id=photo_id, mode='predict')
    assert [sample.image_id for sample in samples] == list(range(8))
