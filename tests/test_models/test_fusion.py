"""Masked-ROI prediction, and what it must not leak."""

import pytest
import torch

from mmnfn.models import FMRIFeatures, ImageFeatures, MaskedROIFusion
from mmnfn.models.fusion import random_roi_mask

B, K, D = 5, 4, 6


def fusion(**kwargs):
    torch.manual_seed(0)
    return MaskedROIFusion(num_rois=K, in_dims=D, embed_dims=8, num_heads=2, **kwargs).double().eval()


def features(present=(True, True, False, True)):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    image = ImageFeatures(normal(B, K, D), normal(B, D), torch.ones(B, K, 1, 1))
    return image, FMRIFeatures(normal(B, K, D), normal(B, D), torch.tensor(present).expand(B, K))


@pytest.mark.parametrize('ratio, count', [(0.01, 1), (0.5, 2), (0.75, 2), (1.0, 3)])
def test_mask_hides_the_asked_share_of_the_present_rois(ratio, count):
    present = torch.tensor([True, True, False, True])
    mask = random_roi_mask(present.expand(200, K), ratio)
    assert (mask.sum(dim=1) == count).all() and not mask[:, 2].any()
    assert (mask[:, present].float().mean(dim=0) - count / 3).abs().max() < 0.15


def test_mask_comes_from_the_global_generator():
    present = torch.ones(50, K, dtype=torch.bool)
    torch.manual_seed(3)
    first, second = random_roi_mask(present, 0.5), random_roi_mask(present, 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, random_roi_mask(present, 0.5))
    assert not torch.equal(first, second)
    parts = []
    for rank in range(2):
        torch.manual_seed(3)
        parts.append(random_roi_mask(present.split([20, 30])[rank], 0.5, (20, 30), rank))
    assert torch.equal(first, torch.cat(parts)), 'ranks hide what one process with all samples hides'


def test_loss_equals_loop():
    module, (image, fmri) = fusion(), features()
    torch.manual_seed(5)
    loss = module.loss(image, fmri)
    torch.manual_seed(5)
    hidden = random_roi_mask(fmri.present, 0.5)
    predicted = module(image, fmri, hidden).predicted
    total = 0.0
    for i in range(B):
        errors = []
        for k in range(K):
            if hidden[i, k]:
                a, b = predicted[i, k] / predicted[i, k].norm(), fmri.rois[i, k] / fmri.rois[i, k].norm()
                errors.append(1 - a @ b)
        total += sum(errors) / len(errors)
    torch.testing.assert_close(loss, total / B)


def test_gradient_reaches_the_image_tower_and_never_the_fmri_tower():
    module, (image, fmri) = fusion(), features()
    module.loss(image, fmri).backward()
    assert image.context.grad.abs().sum() > 0 and image.rois.grad.abs().sum() > 0
    assert fmri.rois.grad is None and fmri.context.grad is None
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name


def test_fusion_sees_the_image_and_the_rois_that_are_neither_hidden_nor_absent():
    module, (image, fmri) = fusion(), features()
    hidden = torch.zeros(B, K, dtype=torch.bool)
    hidden[:, 1] = True
    predicted = module(image, fmri, hidden)
    for k, seen in ((0, True), (1, False), (2, False), (3, True)):
        other = fmri.rois.detach().clone()
        other[:, k] = torch.randn(B, D, dtype=torch.float64)
        changed = module(image, fmri._replace(rois=other), hidden)
        assert torch.equal(predicted.predicted[:, 1], changed.predicted[:, 1]) is not seen
        assert torch.equal(predicted.fused, changed.fused) is not seen
    moved = module(image._replace(context=image.context + 1), fmri, hidden)
    assert not torch.allclose(predicted.fused, moved.fused)
