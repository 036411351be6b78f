"""Mean colours and Gabor energies against loops over pixels."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmnfn.models import BackboneFeatures, LowLevelFeatures


def block_means(image, size):
    """Average a square image (…, n, n) to size × size blocks, for n divisible by size."""
    n = image.shape[-1] // size
    rows = [[image[..., n * i : n * i + n, n * j : n * j + n].mean((-2, -1)) for j in range(size)] for i in range(size)]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def gabor(angle, phase):
    """Gabor function of wavelength 4 and std 2 on 11 × 11 pixels, of zero mean and unit norm."""
    window, wave = torch.zeros(11, 11).double(), torch.zeros(11, 11).double()
    for i in range(11):
        for j in range(11):
            y, x = i - 5, j - 5
            window[i, j] = math.exp(-(x * x + y * y) / 8)
            wave[i, j] = math.cos(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / 4 - phase)
    kernel = window * (wave - (window * wave).sum() / window.sum())
    return kernel / kernel.norm()


def test_energies_equal_a_loop_over_pixels():
    """Of the coarsest map of an image of 64 pixels: borders are mirrored, and the colour does not matter."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    small = block_means(image.mean(1)[0], 16)
    energies = LowLevelFeatures(pixels=False).double()(image)
    assert [tuple(e.shape) for e in energies] == [(1, 4, 64, 64), (1, 4, 32, 32), (1, 4, 16, 16)]
    inside = list(range(5, 0, -1)) + list(range(16)) + list(range(14, 9, -1))
    mirrored = small[inside][:, inside]
    for number, angle in enumerate((0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)):
        even, odd = gabor(angle, 0), gabor(angle, math.pi / 2)
        for i in range(16):
            for j in range(16):
                patch = mirrored[i : i + 11, j : j + 11]
                expected = math.hypot((patch * even).sum(), (patch * odd).sum())
                assert energies[2][0, number, i, j].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('pixels', [64, 224])
@pytest.mark.parametrize('scale, waves', enumerate((16, 8, 4)))
def test_wavelengths_are_relative_to_the_image(scale, waves, pixels):
    """A grating of so many waves excites the map of its wavelength and the channel of its orientation, at any size."""
    place = (torch.arange(pixels) + 0.5) / pixels
    for orientation, direction in enumerate(((1, 0), (0.5**0.5, 0.5**0.5), (0, 1), (-(0.5**0.5), 0.5**0.5))):
        along = direction[0] * place[None, :] + direction[1] * place[:, None]
        grating = torch.sin(2 * torch.pi * waves * along).expand(1, 3, -1, -1)
        strength = torch.stack([energy.mean((0, 2, 3)) for energy in LowLevelFeatures(pixels=False)(grating)])
        assert strength.argmax().item() == 4 * scale + orientation


def test_colours_are_means_of_64_squares_of_the_image():
    """Pooled to 4 × 4 cells as BackboneFeatures does, each cell keeps the colours of its quarters."""
    image = torch.rand(2, 3, 48, 48)
    model = BackboneFeatures(dict(type='mmnfn.LowLevelFeatures', gabors=False))
    features = model.extract_feat(image)
    squares = block_means(image, 8)
    assert features.shape == (2, 192)
    assert torch.allclose(features.sort(1).values, squares.flatten(1).sort(1).values, atol=1e-6)
    of_cells = features.view(2, 3, 4, 4, 4).mean(2)
    assert torch.allclose(of_cells, F.adaptive_avg_pool2d(image, 4), atol=1e-6)


def test_nothing_is_learned_or_saved():
    model = BackboneFeatures(dict(type='mmnfn.LowLevelFeatures'))
    assert not list(model.parameters()) and not [key for key in model.state_dict() if 'backbone' in key]
    with pytest.raises(ValueError, match='pixels and gabors are both False'):
        LowLevelFeatures(pixels=False, gabors=False)
