"""The loss of labelled pixels with class weights, by hand and against MMSegmentation."""

import pytest
import torch

from mmnfn.losses import ClassWeightedLoss


def test_unlabelled_pixels_do_not_count():
    """Two of three pixels are labelled: (4 · ln 2 + 1 · ln 4) / 5."""
    logits = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.9, 0.1]]).log().T[None, :, None]
    label = torch.tensor([[[0, 1, 255]]])
    loss = ClassWeightedLoss([4.0, 1.0], loss_weight=0.5)
    assert loss(logits, label).item() == pytest.approx(0.5 * (4 * 0.6931472 + 1.3862944) / 5, abs=1e-6)
    assert loss(logits, torch.full_like(label, 255)).item() == 0


def test_loss_of_labelled_pixels_equals_mmsegmentations():
    losses = pytest.importorskip('mmseg.models.losses')
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    label = torch.randint(0, 3, (2, 5, 7), generator=generator)
    options = dict(class_weight=[4.0, 1.0, 2.0], loss_weight=0.4)
    assert torch.equal(ClassWeightedLoss(**options)(logits, label), losses.CrossEntropyLoss(**options)(logits, label))
