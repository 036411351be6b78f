"""The encoding head against slow loops."""

import numpy as np
import pytest
import torch
from torch import nn

from mmnfn.models import EncodingHead, NeuroFusionNet
from mmnfn.models.encoding_head import gaussian_fields
from mmnfn.structures import SubjectGeometry

SIZES = (7, 5)


def geometry(subject='subj01'):
    coordinates = torch.randn(sum(SIZES), 3, generator=torch.Generator().manual_seed(3)) * 20
    return SubjectGeometry(subject, ('V1', 'FFA'), SIZES, coordinates)


def head(**settings):
    torch.manual_seed(0)
    own = EncodingHead(**{**dict(in_channels=(4, 6), dims=3, num_voxels=9, num_features=8), **settings}).double()
    own.fields.maps.data.normal_()  # fields that differ
    return own


def maps():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, c, h, w, dtype=torch.float64, generator=generator) for c, h, w in ((4, 6, 8), (6, 3, 4))]


def test_a_field_is_a_gaussian_over_the_cells():
    centre = torch.tensor([[0.25, -0.5], [-1.0, 1.0]], dtype=torch.float64)
    width = torch.tensor([0.1, 0.3], dtype=torch.float64)
    fields = gaussian_fields((4, 6), centre, width)
    for voxel in range(2):
        expected = np.zeros((4, 6))
        for row in range(4):
            for column in range(6):
                x, y = (column + 0.5) / 6, (row + 0.5) / 4  # in sides of the image, from the left and from the top
                away = (x - (centre[voxel, 0] + 1) / 2) ** 2 + (y - (centre[voxel, 1] + 1) / 2) ** 2
                expected[row, column] = np.exp(-away / (2 * width[voxel] ** 2))
        np.testing.assert_allclose(fields[voxel].reshape(4, 6), expected / expected.sum(), atol=1e-12)


def test_predictions_against_a_loop_over_images_voxels_and_cells():
    own, feats = head(), maps()
    predicted = own.predict(own.maps(feats), geometry())
    centre, width, weight = own.receptive_fields(geometry())
    for image in range(5):
        for voxel in range(sum(SIZES)):
            expected = 0.0
            for stage, (reduce, feat) in enumerate(zip(own.reduce, feats)):
                field = gaussian_fields(feat.shape[2:], centre[voxel : voxel + 1], width[voxel : voxel + 1])[0]
                reduced = reduce(feat[image : image + 1])[0].flatten(1)
                for cell, share in enumerate(field):
                    expected += float(share * (weight[voxel, stage] @ reduced[:, cell]))
            assert predicted[image, voxel].item() == pytest.approx(expected, abs=1e-12)


def test_neighbours_have_neighbouring_fields_unless_they_are_free():
    near = geometry()
    near = near._replace(coordinates=near.coordinates[:1] + torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [30.0, 0, 0]]))
    near = near._replace(roi_sizes=(3, 0))
    for mode, smooth in (('smooth', True), ('free', False)):
        centre, _, _ = head(mode=mode, max_voxels=12).receptive_fields(near)
        to_neighbour, far = (centre[1] - centre[0]).norm(), (centre[2] - centre[0]).norm()
        assert (to_neighbour < 0.1 * far) == smooth


def test_a_pooled_head_is_a_linear_map_of_the_average():
    own, feats = head(mode='pooled', max_voxels=20), maps()
    predicted = own.predict(own.maps(feats), geometry())
    for voxel in range(sum(SIZES)):
        expected = 0.0
        for stage, feat in enumerate(feats):
            a = own.fields.maps[0, voxel, 3 + 3 * stage : 6 + 3 * stage]
            expected = expected + feat.mean((2, 3)) @ (a @ own.reduce[stage].weight[:, :, 0, 0])
        torch.testing.assert_close(predicted[:, voxel], expected)
    predicted.sum().backward()
    assert own.fields.maps.grad.isfinite().all()


def test_measured_fields_are_taken_as_they_are():
    measured = torch.rand(sum(SIZES), 3, dtype=torch.float64)
    centre, width, _ = head(mode='prf').receptive_fields(geometry()._replace(prf=measured))
    assert torch.equal(centre, measured[:, :2]) and torch.equal(width, measured[:, 2])
    with pytest.raises(ValueError, match='the store of subj01 has none'):
        head(mode='prf').receptive_fields(geometry())


def test_drawn_voxels_change_with_the_step_and_are_spread_evenly():
    own = head(num_voxels=600)
    draws = torch.stack([own.draw(geometry(), step) for step in range(50)])
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], own.draw(geometry('subj02'), 0))
    counts = torch.bincount(draws.flatten(), minlength=sum(SIZES))
    assert len(counts) == sum(SIZES) and (counts - 2500).abs().max() < 250  # five standard deviations


def test_encoding_guides_a_backbone_without_the_fmri_tower():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.GELU())
    encoding = dict(in_channels=(4,), dims=3, num_features=16, num_voxels=64)
    model = NeuroFusionNet(backbone, encoding=encoding).train()
    images, subject = torch.randn(24, 3, 12, 12), geometry()
    responses = torch.randn(24, 1, generator=torch.Generator().manual_seed(5)) * torch.ones(sum(SIZES))
    responses = responses + images[:, 0, :6, :6].mean((1, 2))[:, None] * 10  # all voxels look at the upper left
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        losses = model(images, responses, torch.arange(24), subject, mode='loss')
        optimizer.zero_grad()
        losses['loss_enc'].backward()
        optimizer.step()
    assert set(losses) == {'loss_enc', 'enc_r'} and losses['enc_r'] > 0.8
    rows = model.eval()(images, responses, torch.arange(24), subject, mode='predict')
    predicted = torch.stack([row.predicted_responses for row in rows])
    r = np.corrcoef(predicted[:, 0].numpy(), responses[:, 0].numpy())[0, 1]
    assert predicted.shape == responses.shape and r > 0.8


@pytest.mark.parametrize(
    'settings, message',
    [(dict(mode='x'), 'mode of the encoding head'), (dict(stages=(0,)), 'in_channels has 2 numbers for 1 stages')],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        head(**settings)


def test_maps_of_other_stages_are_refused():
    with pytest.raises(ValueError, match=r'is \(4, 6\), but the maps of the backbone have \(6, 4\)'):
        head().maps(maps()[::-1])
