"""The image side: pooling, and the backbones that fit."""

import pytest
import torch
from mmpretrain.models import ConvNeXt, VisionTransformer

from mmnfn.models import BackboneFeatures, ROIImageHead

VIT = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)


def test_pooling_equals_loop():
    torch.manual_seed(0)
    head = ROIImageHead(in_channels=5, out_dims=4, num_rois=3).double()
    feat = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    features = head((torch.zeros(1), feat))
    assert features.context.shape == (2, 4) and features.maps.shape == (2, 3, 2, 3)
    torch.testing.assert_close(features.maps.sum(dim=(2, 3)), torch.ones(2, 3, dtype=torch.float64))
    for b in range(2):
        torch.testing.assert_close(features.context[b], head.context(feat[b].flatten(1).mean(dim=1)))
        for k in range(3):
            weights = torch.stack(
                [(head.map_conv.weight[k, :, 0, 0] @ feat[b, :, y, x]).exp() for y in range(2) for x in range(3)]
            )
            weights = weights / weights.sum()
            pooled = sum(w * feat[b, :, i // 3, i % 3] for i, w in enumerate(weights))
            torch.testing.assert_close(features.maps[b, k].flatten(), weights, rtol=0, atol=1e-12)
            torch.testing.assert_close(
                features.rois[b, k], head.roi_linear.weight[k] @ pooled + head.roi_linear.bias[k], rtol=0, atol=1e-12
            )


def test_rois_of_a_pyramid_are_pooled_from_its_finest_map():
    torch.manual_seed(0)
    head = ROIImageHead(in_channels=(3, 5), out_dims=4, num_rois=2, pyramid_dims=6).double()
    fine, coarse = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 5, 2, 3, dtype=torch.float64)
    features = head((torch.zeros(1), fine, coarse))
    assert features.maps.shape == (2, 2, 4, 6)
    torch.testing.assert_close(features.context, head.context(coarse.mean((2, 3))))
    local = head.lateral[0](fine) + head.lateral[1](coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
    local = head.smooth(local)
    for b in range(2):
        for k in range(2):
            pooled = (features.maps[b, k] * local[b]).sum((1, 2))
            torch.testing.assert_close(
                features.rois[b, k], head.roi_linear.weight[k] @ pooled + head.roi_linear.bias[k], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize(
    'backbone, advice',
    [
        (lambda: VisionTransformer(VIT, img_size=32, patch_size=16), "out_type='featmap'"),
        (lambda: ConvNeXt(dict(depths=[1, 1, 1, 1], channels=[4, 4, 4, 16])), 'gap_before_final_norm=False'),
        (lambda: torch.nn.Conv2d(3, 5, 3), r'maps of the backbone have \(5,\) channels; set neck.in_channels'),
    ],
)
def test_unsuitable_outputs_are_refused_with_advice(backbone, advice):
    with pytest.raises(ValueError, match=advice):
        ROIImageHead(16)(backbone()(torch.randn(2, 3, 32, 32)))


def test_features_are_pooled_maps_and_never_tokens():
    """(B, tokens, C) would be pooled as if it were one image."""
    images = torch.randn(2, 3, 32, 32)
    vit = dict(type='mmpretrain.VisionTransformer', arch=VIT, img_size=32, patch_size=16)
    model = BackboneFeatures(dict(vit, out_type='featmap'), grid=2)
    assert model.extract_feat(images).shape == (2, 16 * 4)
    assert ROIImageHead(16)(model.backbone(images)).rois.shape == (2, 6, 256)
    model.backbone = torch.nn.Conv2d(3, 5, 3)
    cells = model.backbone(images).unflatten(2, (2, 15)).unflatten(4, (2, 15))  # (2, 5, 30, 30) in four parts
    torch.testing.assert_close(model.extract_feat(images), cells.mean((3, 5)).flatten(1))
    with pytest.raises(ValueError, match="an output of it is .2, 5, 16.; set out_type='featmap'"):
        BackboneFeatures(dict(vit, out_type='raw')).extract_feat(images)


def test_gradients_of_a_backbone_that_ends_in_a_gelu():
    """Single precision equals double; PyTorch 2.1 for CPUs is wrong here unless the head prevents it."""
    torch.manual_seed(0)
    backbone, head = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.GELU()), ROIImageHead(16, 8, 3)
    images, gradients = torch.randn(8, 3, 10, 10), []
    for dtype in (torch.float32, torch.float64):
        backbone, head = backbone.to(dtype), head.to(dtype)
        backbone.zero_grad()
        features = head([backbone(images.to(dtype))])
        (features.rois.square().sum() + features.context.square().sum()).backward()
        gradients.append(backbone[0].weight.grad.double())
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
