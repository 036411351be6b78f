"""Equation 6 and VICReg against loops written from the papers, and the temperature with its limit."""

import math

import pytest
import torch

from mmnfn.losses import ContrastiveLoss, Temperature, VICRegLoss, contrastive_loss


def loop_contrastive(p, q, sigma, image_ids, normalize=True):
    """Compute L_con = -1/N sum_i log exp(p_i.q_i/sigma) / sum_j exp(p_i.q_j/sigma) without j != i of the same image."""
    if normalize:
        p, q = ([row / row.norm() for row in x] for x in (p, q))
    total = 0.0
    for i in range(len(p)):
        denominator = 0.0
        for j in range(len(q)):
            if j == i or image_ids[j] != image_ids[i]:
                denominator += math.exp(float(p[i] @ q[j]) / sigma)
        total += math.log(math.exp(float(p[i] @ q[i]) / sigma) / denominator)
    return -total / len(p)


def loop_vicreg(p, q, weights):
    """Compute VICReg one number at a time, with covariances divided by N - 1."""
    count, dims = p.shape
    total = weights[0] * sum(float(p[i, d] - q[i, d]) ** 2 for i in range(count) for d in range(dims)) / (count * dims)
    for x in (p, q):
        mean = [sum(float(x[i, d]) for i in range(count)) / count for d in range(dims)]
        for d in range(dims):
            for e in range(dims):
                products = [(float(x[i, d]) - mean[d]) * (float(x[i, e]) - mean[e]) for i in range(count)]
                cov = sum(products) / (count - 1)
                if d == e:
                    total += weights[1] / dims * max(0.0, 1 - math.sqrt(cov + 1e-4))
                else:
                    total += weights[2] / dims * cov**2
    return total


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(6, 5, dtype=torch.float64, generator=generator) for _ in range(2))


@pytest.mark.parametrize('ids', [[0, 1, 2, 3, 4, 5], [7, 1, 7, 3, 7, 1]])
@pytest.mark.parametrize('symmetric', [True, False])
@pytest.mark.parametrize('normalize', [True, False])
def test_equals_loop(features, ids, symmetric, normalize):
    image, fmri = features
    expected = loop_contrastive(image, fmri, 0.3, ids, normalize)
    if symmetric:
        expected = (expected + loop_contrastive(fmri, image, 0.3, ids, normalize)) / 2
    loss = contrastive_loss(image, fmri, 0.3, torch.tensor(ids), symmetric, normalize)
    assert float(loss) == pytest.approx(expected, abs=1e-12)
    module = ContrastiveLoss(0.3, symmetric=symmetric, normalize=normalize).double()
    assert float(module(image, fmri, torch.tensor(ids)).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('weights', [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg_equals_loop(features, weights):
    image, fmri = features[0], 0.3 * features[1]
    loss = VICRegLoss(weights)(image, fmri, torch.zeros(6))
    assert float(loss) == pytest.approx(loop_vicreg(image, fmri, weights), abs=1e-12)


def test_vicreg_brings_pairs_together_without_collapse():
    """Descent from nearly the same vector for all: pairs agree, and both modalities spread over uncorrelated axes."""
    start = torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0))
    features = (1 + 0.01 * start).requires_grad_()
    optimizer = torch.optim.Adam([features], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        VICRegLoss()(*features).backward()
        optimizer.step()
    image, fmri = features.detach()
    torch.testing.assert_close(image, fmri, atol=0.05, rtol=0)
    for modality in (image, fmri):
        assert modality.std(dim=0).min() > 0.95
        torch.testing.assert_close(modality.t().corrcoef(), torch.eye(4), atol=0.1, rtol=0)


def test_gradients_are_finite_where_all_show_the_same_image(features):
    image, fmri = (x.clone().requires_grad_() for x in features)
    contrastive_loss(image, fmri, 0.1, torch.zeros(6, dtype=torch.int64)).backward()
    assert image.grad.isfinite().all() and fmri.grad.isfinite().all()


def test_module_trains_its_temperature(features):
    module = ContrastiveLoss(temperature=0.3).double()
    module(*features, torch.arange(6)).backward()
    assert module.temperature.log_scale.grad.abs() > 1e-3
    fixed = ContrastiveLoss(temperature=0.3, learnable_temperature=False)
    assert not list(fixed.parameters()) and not fixed.state_dict()


def test_top1_is_of_images_and_leaves_out_their_second_rows():
    """Row 0 is nearest to row 1, of the same image; fMRI feature 0 is nearest to image 2, which does not matter."""
    image = torch.eye(3)[[0, 0, 1, 2]]
    fmri = torch.tensor([[0.6, 0.8, 0], [1, 0, 0], [0, 1, 0], [0, 0.6, 0.8]])
    ids = torch.tensor([4, 4, 5, 6])

    def top1(loss, fmri, ids=None):
        return float(loss.metrics(image, fmri, ids)['batch_top1'])

    assert top1(ContrastiveLoss(), fmri, ids) == top1(VICRegLoss(), fmri, ids) == 1
    assert top1(ContrastiveLoss(), fmri) == 0.75
    longer = fmri * torch.tensor([[3.0], [1], [1], [1]])  # without normalisation it is the most similar to image 2
    assert top1(ContrastiveLoss(), longer, ids) == 1
    assert top1(ContrastiveLoss(normalize=False), longer, ids) == 0.75


def test_shapes_are_checked():
    for image, fmri, ids, word in (((4, 3), (4, 2), 4, 'image and fmri'), ((4, 3), (4, 3), 3, 'image_ids')):
        with pytest.raises(ValueError, match=word):
            contrastive_loss(torch.ones(image), torch.ones(fmri), 0.1, torch.arange(ids))


def test_inverse_stays_at_most_100_and_can_come_back():
    temperature = Temperature(0.02, learnable=True)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=100.0)
    temperature().backward()  # lowers sigma
    optimizer.step()
    assert float(temperature.log_scale.detach().exp()) > 100
    assert float(temperature.eval()()) == pytest.approx(0.01, rel=1e-5)
    optimizer.zero_grad()
    (-temperature.train()()).backward()
    optimizer.step()
    assert float(temperature()) > 0.011


def test_temperature_has_a_range():
    """Positive, and at least 0.01 if it is learnable."""
    for value, learnable in ((0.01, True), (0.07, True), (0.001, False)):
        assert float(Temperature(value, learnable)()) == pytest.approx(value, rel=1e-6)
    for value, learnable in ((0.0, True), (-1.0, False), (0.001, True)):
        with pytest.raises(ValueError, match='temperature'):
            Temperature(value, learnable)


def test_evaluation_leaves_the_parameter_alone():
    temperature = Temperature(0.02, learnable=True).eval()
    temperature.log_scale.data.fill_(7.0)  # beyond the limit, as after an optimizer step
    assert float(temperature()) == pytest.approx(0.01, rel=1e-5)
    assert float(temperature.log_scale) == 7
    temperature.train()()
    assert float(temperature.log_scale.detach().exp()) == pytest.approx(100, rel=1e-5)


def test_temperature_may_be_used_twice_in_a_step():
    """Both gradients arrive in a model that is called twice before the backward pass."""
    temperature = Temperature(0.02, learnable=True)
    temperature.log_scale.data.fill_(7.0)
    (temperature() + temperature()).backward()
    assert float(temperature.log_scale.grad) == pytest.approx(-0.02, rel=1e-5)


def test_temperature_can_be_compiled():
    plain, other = Temperature(0.02, learnable=True), Temperature(0.02, learnable=True)
    compiled = torch.compile(other, backend='eager')
    for temperature in (plain, compiled):
        (temperature() + temperature()).backward()
    assert torch.equal(plain.log_scale.grad, other.log_scale.grad)
