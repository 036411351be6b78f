"""Equation 7 against a loop written from the paper."""

import math

import pytest
import torch

from mmnfn.losses import FMRIGuidedLoss, fmri_guided_loss

N, K, D = 5, 4, 3


def loop_guidance(p, q, present, negatives='roi', ids=None, temperature=1.0, normalise=False, rois=range(K), mean=True):
    """Compute L_bfg = -1/N sum_i sum_k log exp(p_i^k.q_i^k) / sum_g exp(p_i^k.q_i^g) over the present ROIs."""

    def similarity(i, k, j, g):
        a, b = p[i, k], q[j, g]
        if normalise:
            a, b = a / a.norm(), b / b.norm()
        return float(a @ b) / temperature

    total = 0.0
    for i in range(len(p)):
        for k in rois:
            if not present[i][k]:
                continue
            denominator = sum(math.exp(similarity(i, k, i, g)) for g in range(p.shape[1]) if present[i][g])
            if negatives == 'roi+batch':
                for j in range(len(p)):
                    if j != i and ids[j] != ids[i] and present[j][k]:
                        denominator += math.exp(similarity(i, k, j, k))
            share = 1 / sum(map(int, present[i])) if mean else 1
            total += share * math.log(math.exp(similarity(i, k, i, k)) / denominator)
    return -total / len(p)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(N, K, D, dtype=torch.float64, generator=generator) for _ in range(2))


PRESENT = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 1, 0], [1, 1, 0, 1]], dtype=torch.bool)
IDS = [3, 4, 3, 5, 6]


def test_one_presence_for_all_samples_and_no_ids(features):
    """One subject without the second ROI; without ids all other samples are negatives."""
    loss = fmri_guided_loss(*features, 0.5, torch.tensor([True, False, True, True]), 'roi+batch')
    present = torch.tensor([True, False, True, True]).expand(N, K)
    expected = loop_guidance(*features, present, 'roi+batch', list(range(N)), 0.5, True)
    assert float(loss) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
@pytest.mark.parametrize('negatives', ['roi', 'roi+batch'])
@pytest.mark.parametrize('normalise', [True, False])
def test_absent_rois_and_negatives_equal_loop(features, negatives, normalise, reduction):
    loss = fmri_guided_loss(
        *features, 0.5, PRESENT, negatives, torch.tensor(IDS), normalize=normalise, reduction=reduction
    )
    expected = loop_guidance(*features, PRESENT, negatives, IDS, 0.5, normalise, mean=reduction == 'mean')
    assert float(loss) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('negatives', ['roi', 'roi+batch'])
def test_absent_rois_get_no_gradient_and_change_nothing(features, negatives):
    """Zero features of absent ROIs, which the encoder gives, must not make the gradient NaN."""
    image, fmri = features
    fmri = (fmri * PRESENT[:, :, None]).requires_grad_()
    image = image.clone().requires_grad_()
    loss = fmri_guided_loss(image, fmri, 0.5, PRESENT, negatives, torch.tensor(IDS))
    loss.backward()
    for grad in (image.grad, fmri.grad):
        assert grad.isfinite().all()
        assert (grad[~PRESENT] == 0).all() and (grad[PRESENT].abs().sum(-1) > 0).any()
    other = torch.where(PRESENT[:, :, None], fmri.detach(), torch.tensor(9.0, dtype=torch.float64))
    torch.testing.assert_close(
        loss.detach(), fmri_guided_loss(image.detach(), other, 0.5, PRESENT, negatives, torch.tensor(IDS))
    )


@pytest.mark.parametrize('negatives', ['roi', 'roi+batch'])
def test_a_sample_without_any_roi_takes_no_part(features, negatives):
    """Empty rows of the softmax would have NaN gradients, at least in between."""
    present = PRESENT.clone()
    present[3] = False
    image, fmri = features[0].clone().requires_grad_(), (features[1] * present[:, :, None]).requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        loss = fmri_guided_loss(image, fmri, 0.5, present, negatives, torch.tensor(IDS))
        loss.backward()
    expected = loop_guidance(*(x.detach() for x in (image, fmri)), present, negatives, IDS, 0.5, True)
    assert float(loss) == pytest.approx(expected, abs=1e-12)
    for grad in (image.grad, fmri.grad):
        assert grad.isfinite().all() and (grad[3] == 0).all()


def test_constant_roi_codes_minimise_it_unless_the_batch_gives_negatives():
    """With 'roi' one code per ROI, the same for every image, is a perfect solution."""
    codes = torch.eye(K, dtype=torch.float64).expand(N, K, K)
    assert float(fmri_guided_loss(codes, codes, 0.05, negatives='roi')) < 1e-7
    chance = math.log(N)
    assert float(fmri_guided_loss(codes, codes, 0.05, negatives='roi+batch')) == pytest.approx(chance, rel=1e-6)


def test_parts_of_each_roi(features):
    parts = fmri_guided_loss(*features, 0.5, PRESENT, 'roi+batch', torch.tensor(IDS), reduction='none')
    expected = [loop_guidance(*features, PRESENT, 'roi+batch', IDS, 0.5, True, [k], mean=False) for k in range(K)]
    assert parts.mean(0).tolist() == pytest.approx(expected, abs=1e-12) and len(set(expected)) == K
    with pytest.raises(ValueError, match="reduction must be one of .*'max'"):
        fmri_guided_loss(*features, reduction='max')


def test_module_passes_its_options_on(features):
    module = FMRIGuidedLoss(temperature=0.5, negatives='roi+batch', normalize=False, reduction='sum').double()
    expected = fmri_guided_loss(*features, 0.5, PRESENT, 'roi+batch', torch.tensor(IDS), False, 'sum')
    torch.testing.assert_close(module(*features, PRESENT, torch.tensor(IDS)), expected, rtol=1e-6, atol=0)
    assert not list(module.parameters())
    assert len(list(FMRIGuidedLoss(learnable_temperature=True).parameters())) == 1


def test_bad_arguments_are_named(features):
    image, fmri = features
    with pytest.raises(ValueError, match="negatives must be one of .*'batch'"):
        fmri_guided_loss(image, fmri, negatives='batch')
    with pytest.raises(ValueError, match="negatives must be one of .*'batch'"):
        FMRIGuidedLoss(negatives='batch')
    with pytest.raises(ValueError, match="reduction must be one of .*'none'"):
        FMRIGuidedLoss(reduction='none')
    with pytest.raises(ValueError, match='image_rois and fmri_rois'):
        fmri_guided_loss(image, fmri[:, :2])
    with pytest.raises(ValueError, match='present must have shape'):
        fmri_guided_loss(image, fmri, present=torch.ones(K + 1, dtype=torch.bool))
