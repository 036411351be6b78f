"""The encoding head against slow loops."""

import numpy as np
import pytest
import torch
from torch import nn

from mmnfn.evaluation import pearson_r
from mmnfn.losses import correlation_loss
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


def test_wrong_modes_are_refused():
    with pytest.raises(ValueError, match='mode of the encoding head'):
        head(mode='x')


def test_maps_of_other_stages_are_refused():
    with pytest.raises(ValueError, match=r'is \(4, 6\), but the last feature maps of the backbone have \(6, 4\)'):
        head().maps(maps()[::-1])


def test_roi_maps_are_what_each_cell_adds_to_the_predictions_of_the_roi():
    own, feats = head(), [feat[:, :, :6, :8] for feat in maps()]
    reduced = own.maps(feats)
    heat = own.roi_maps(reduced, geometry())
    assert heat.shape == (5, 2, 6, 8)
    centre, width, weight = own.receptive_fields(geometry())
    for k, voxels in enumerate((range(7), range(7, 12))):
        parts = np.zeros((5, 6, 8))
        for voxel in voxels:
            for stage, feat in enumerate(reduced):
                field = gaussian_fields(feat.shape[2:], centre[voxel : voxel + 1], width[voxel : voxel + 1])[0]
                field = field.reshape(feat.shape[2:])
                side = 6 // feat.shape[2]  # a cell of a coarse map is shared by side x side fine ones
                for row in range(6):
                    for column in range(8):
                        value = feat[:, :, row // side, column // side] @ weight[voxel, stage]
                        parts[:, row, column] += (field[row // side, column // side] * value / side**2).detach().numpy()
        predicted = own.predict(reduced, geometry())[:, list(voxels)].sum(1).detach()
        np.testing.assert_allclose(parts.sum((1, 2)), predicted, atol=1e-12)
        expected = np.maximum(parts - parts.mean((1, 2), keepdims=True), 0)
        expected /= expected.sum((1, 2), keepdims=True)
        np.testing.assert_allclose(heat[:, k].detach(), expected, atol=1e-12)


@pytest.fixture(scope='module')
def retinotopic():
    """Maps of 400 images, and noisy responses of 300 voxels whose fields change smoothly over the cortex."""
    rng = np.random.default_rng(0)
    coordinates = rng.uniform(-20, 20, (300, 3))
    x = 0.8 * np.sin(coordinates[:, 0] / 8)
    y = 0.8 * np.sin(coordinates[:, 1] / 10 + coordinates[:, 2] / 12)
    weight = np.stack([np.cos(coordinates @ direction / 12) for direction in rng.normal(size=(6, 3))], 1)
    feats = torch.from_numpy(rng.normal(size=(400, 6, 8, 8)))
    fields = gaussian_fields((8, 8), torch.from_numpy(np.stack([x, y], 1)), torch.full((300,), 0.1).double())
    signal = ((feats.flatten(2) @ fields.t()).numpy() * weight.T).sum(1)
    responses = signal / signal.std(0) + rng.normal(size=signal.shape)
    return feats.float(), torch.from_numpy(responses).float(), torch.from_numpy(coordinates).float(), np.stack([x, y])


def trained_on(feats, responses, coordinates):
    """Train a head on the first 300 images; the geometry, the head, and its mean r on the others."""
    torch.manual_seed(0)
    subject = SubjectGeometry('subj01', ('V1',), (300,), coordinates)
    own = EncodingHead(in_channels=(6,), dims=6, num_voxels=150, num_features=64, wavelengths=(20, 120))
    optimizer = torch.optim.Adam(own.parameters(), 0.01)
    for _ in range(250):
        rows = torch.randint(0, 300, (64,))
        predicted, measured, weight, number = own([feats[rows]], responses[rows], subject)
        optimizer.zero_grad()
        correlation_loss(predicted, measured, weight, number, 8).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = own.predict(own.maps([feats[300:]]), subject).numpy()
    return subject, own, pearson_r(predicted, responses[300:].numpy()).mean()


def test_centres_recover_receptive_fields_and_right_positions_beat_permuted_ones(retinotopic):
    feats, responses, coordinates, truth = retinotopic
    subject, own, r = trained_on(feats, responses, coordinates)
    centre = own.receptive_fields(subject)[0].detach().numpy().T
    assert all(np.corrcoef(centre[axis], truth[axis])[0, 1] > 0.8 for axis in (0, 1))
    permuted = trained_on(feats, responses, coordinates[torch.randperm(300)])[2]
    assert r > 1.3 * permuted
