"""Equation 6 against a loop written from the paper."""

import math

import pytest
import torch

from mmnfn.losses import ContrastiveLoss, contrastive_loss


def normalised(x):
    return [row / row.norm() for row in x]


def loop_contrastive(image, fmri, sigma, image_ids):
    """L_con = -1/N sum_i log exp(p_i.q_i/sigma) / sum_j exp(p_i.q_j/sigma), same-image j != i left out."""
    p, q = normalised(image), normalised(fmri)
    total = 0.0
    for i in range(len(p)):
        denominator = 0.0
        for j in range(len(q)):
            if j == i or image_ids[j] != image_ids[i]:
                denominator += math.exp(float(p[i] @ q[j]) / sigma)
        total += math.log(math.exp(float(p[i] @ q[i]) / sigma) / denominator)
    return -total / len(p)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(6, 5, dtype=torch.float64, generator=generator),
        torch.randn(6, 5, dtype=torch.float64, generator=generator),
    )


@pytest.mark.parametrize('ids', [[0, 1, 2, 3, 4, 5], [7, 1, 7, 3, 7, 1]])
def test_one_way_equals_loop(features, ids):
    image, fmri = features
    loss = contrastive_loss(image, fmri, 0.3, torch.tensor(ids), symmetric=False)
    assert float(loss) == pytest.approx(loop_contrastive(image, fmri, 0.3, ids), abs=1e-12)


def test_symmetric_is_mean_of_both_directions(features):
    image, fmri = features
    ids = [7, 1, 7, 3, 7, 1]
    expected = (loop_contrastive(image, fmri, 0.3, ids) + loop_contrastive(fmri, image, 0.3, ids)) / 2
    assert float(contrastive_loss(image, fmri, 0.3, torch.tensor(ids))) == pytest.approx(expected, abs=1e-12)


def test_without_normalisation(features):
    image, fmri = features
    logits = image @ fmri.t() / 2.0
    expected = -(torch.log_softmax(logits, dim=1).diagonal()).mean()
    torch.testing.assert_close(contrastive_loss(image, fmri, 2.0, symmetric=False, normalize=False), expected)


def test_second_row_of_an_image_is_no_negative(features):
    """With an identical second row of image 0, the loss of two samples is that of one: zero."""
    image, fmri = features
    image, fmri = image[:1].repeat(2, 1), fmri[:1].repeat(2, 1)
    assert float(contrastive_loss(image, fmri, 0.1, torch.tensor([4, 4]))) == 0.0
    assert float(contrastive_loss(image, fmri, 0.1, torch.tensor([4, 5]))) == pytest.approx(math.log(2))


def test_gradients_are_finite_where_all_show_the_same_image(features):
    image, fmri = (x.clone().requires_grad_() for x in features)
    contrastive_loss(image, fmri, 0.1, torch.zeros(6, dtype=torch.int64)).backward()
    assert image.grad.isfinite().all() and fmri.grad.isfinite().all()


def test_permuting_samples_changes_nothing(features):
    image, fmri = features
    ids, order = torch.tensor([7, 1, 7, 3, 7, 1]), torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(
        contrastive_loss(image, fmri, 0.3, ids), contrastive_loss(image[order], fmri[order], 0.3, ids[order])
    )


def test_module_trains_its_temperature(features):
    module = ContrastiveLoss(temperature=0.3).double()
    loss = module(*features, torch.arange(6))
    torch.testing.assert_close(loss, contrastive_loss(*features, 0.3, torch.arange(6)), rtol=1e-6, atol=0)
    loss.backward()
    assert module.temperature.log_scale.grad.abs() > 1e-3
    fixed = ContrastiveLoss(temperature=0.3, learnable_temperature=False)
    assert not list(fixed.parameters()) and not fixed.state_dict()


@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('normalize', [True, False])
def test_module_passes_its_options_on(features, symmetric, normalize):
    ids = torch.tensor([7, 1, 7, 3, 7, 1])
    module = ContrastiveLoss(0.5, symmetric=symmetric, normalize=normalize).double()
    expected = contrastive_loss(*features, 0.5, ids, symmetric, normalize)
    torch.testing.assert_close(module(*features, ids), expected, rtol=1e-5, atol=0)


def test_top1_counts_own_fmri_feature():
    image = torch.eye(4)
    fmri = torch.eye(4)[[0, 1, 3, 2]]
    assert float(ContrastiveLoss().top1(image, fmri, torch.arange(4))) == 0.5


def test_top1_is_of_images_and_leaves_out_their_second_rows():
    """Row 0 is nearest to row 1, the same image; fMRI feature 0 is nearest to image 2, and that does not count."""
    image = torch.eye(3)[[0, 0, 1, 2]]
    fmri = torch.tensor([[0.6, 0.8, 0], [1, 0, 0], [0, 1, 0], [0, 0.6, 0.8]])
    ids = torch.tensor([4, 4, 5, 6])
    assert float(ContrastiveLoss().top1(image, fmri, ids)) == 1
    assert float(ContrastiveLoss().top1(image, fmri)) == 0.75
    longer = fmri * torch.tensor([[3.0], [1], [1], [1]])  # now it is the most similar one to image 2, if not normalised
    assert float(ContrastiveLoss().top1(image, longer, ids)) == 1
    assert float(ContrastiveLoss(normalize=False).top1(image, longer, ids)) == 0.75


@pytest.mark.parametrize(
    'image, fmri, ids, word',
    [
        ((4, 3), (5, 3), None, 'image and fmri'),
        ((4, 3), (4, 2), None, 'image and fmri'),
        ((4, 3), (4, 3), 3, 'image_ids'),
    ],
)
def test_shapes_are_checked(image, fmri, ids, word):
    ids = None if ids is None else torch.arange(ids)
    with pytest.raises(ValueError, match=word):
        contrastive_loss(torch.ones(image), torch.ones(fmri), 0.1, ids)
