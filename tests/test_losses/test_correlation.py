"""L_enc against NumPy's correlation, voxel by voxel."""

import numpy as np
import pytest
import torch

from mmnfn.losses import correlation_loss


def slow(predicted, measured, weight, subject):
    total, weights = 0.0, 0.0
    for number in sorted(set(subject.tolist())):
        rows = subject == number
        if rows.sum() < 2:
            continue
        for voxel in range(predicted.shape[1]):
            r = np.corrcoef(predicted[rows, voxel], measured[rows, voxel])[0, 1]
            total += float(weight[rows, voxel][0]) * (1 - r)
            weights += float(weight[rows, voxel][0])
    return total / weights


@pytest.fixture
def batch():
    subject = torch.tensor([2, 2, 2, 0, 0, 0, 0, 1])  # subject 1 has one sample, and no correlation
    predicted, measured = torch.randn(2, 8, 5, dtype=torch.float64) * 3 + 7
    weight = torch.rand(4, 5, dtype=torch.float64)[subject]
    return predicted, measured, weight, subject


def test_it_is_one_minus_pearsons_r_weighted(batch):
    assert correlation_loss(*batch, num_subjects=4, eps=1e-12).item() == pytest.approx(slow(*batch), abs=1e-12)


def test_scale_and_offset_of_a_voxel_do_not_matter(batch):
    predicted, *others = batch
    changed = correlation_loss(predicted * torch.rand(5) + torch.randn(5), *others, num_subjects=4, eps=1e-12)
    torch.testing.assert_close(changed, correlation_loss(*batch, num_subjects=4, eps=1e-12))


def test_voxels_without_weight_or_change_have_finite_gradients(batch):
    predicted, measured, weight, subject = batch
    predicted, measured, weight = torch.zeros_like(predicted).requires_grad_(), measured.clone(), weight.clone()
    measured[:, 0], weight[:, 1] = 4.0, 0.0
    loss = correlation_loss(predicted, measured, weight, subject, 4)
    loss.backward()
    assert loss.item() == pytest.approx(1) and torch.isfinite(predicted.grad).all()
    assert not predicted.grad[:, 1].any() and not predicted.grad[-1].any()


def test_gradients(batch):
    predicted, *others = batch
    assert torch.autograd.gradcheck(lambda x: correlation_loss(x, *others, 4), predicted.requires_grad_())
