"""Equations 1 to 3 against a loop written from the paper."""

import pytest
import torch

from mmnfn.models import VoxelEmbedding
from mmnfn.models.voxel_embedding import sinusoidal_position
from mmnfn.structures import SubjectGeometry

KERNEL, STRIDE, DIMS = 8, 4, 5


def geometry(sizes):
    generator = torch.Generator().manual_seed(1)
    coordinates = 40 * torch.randn(sum(sizes), 3, generator=generator) + 20
    return SubjectGeometry('subj01', tuple(f'roi{k}' for k in range(len(sizes))), tuple(sizes), coordinates)


def embedding(num_rois=3, **kwargs):
    torch.manual_seed(2)
    return VoxelEmbedding(num_rois, DIMS, KERNEL, STRIDE, position_dims=4, **kwargs).double()


def loop_embedding(module, responses, geo):
    """Compute r^k = Conv1D(m^k) + Conv1D(v(m^k)), with each output of each convolution written out."""
    centre = geo.coordinates.double().mean(dim=0)
    samples = []
    for sample in responses:
        tokens, first = [], 0
        for k, size in enumerate(geo.roi_sizes):
            group = k if module.response_weight.shape[0] > 1 else 0
            m, places = sample[first : first + size], geo.coordinates[first : first + size].double()
            if module.position == '3d':
                v = [module.position_linear((xyz - centre) / 50) for xyz in places]
            else:
                v = list(sinusoidal_position(size, 4, m.device, m.dtype))
            first += size
            for token in range(module.num_tokens(size)):
                out = module.bias[group].clone()
                for t in range(KERNEL):
                    i = token * STRIDE + t
                    if i >= size:  # zero padding
                        continue
                    out = out + module.response_weight[group, :, t] * m[i]
                    if module.position != 'none':
                        out = out + module.position_weight[group, :, :, t] @ v[i]
                tokens.append(out)
        samples.append(torch.stack(tokens))
    return torch.stack(samples)


@pytest.mark.parametrize(
    'num_voxels, drop, pad',
    [(0, 0, 0), (1, 1, 1), (31, 1, 1), (32, 1, 1), (33, 1, 2), (48, 2, 2), (49, 2, 3), (27643, 1726, 1727)],
)
def test_number_of_tokens_is_the_papers(num_voxels, drop, pad):
    assert drop == ((num_voxels - 32) // 16 + 1 if num_voxels >= 32 else min(num_voxels, 1))
    assert VoxelEmbedding(1, 4).num_tokens(num_voxels) == drop
    assert VoxelEmbedding(1, 4, tail='pad').num_tokens(num_voxels) == pad


@pytest.mark.parametrize('position', ['3d', '1d', 'none'])
@pytest.mark.parametrize('share_weights', [True, False])
@pytest.mark.parametrize('tail', ['drop', 'pad'])
def test_equals_loop(position, share_weights, tail):
    """ROIs with a tail, without voxels, shorter than the kernel, and without a tail."""
    geo = geometry((21, 0, 5, 16))
    module = embedding(4, position=position, share_weights=share_weights, tail=tail)
    responses = torch.randn(2, 42, dtype=torch.float64)
    tokens = module(responses, geo)
    assert tokens.shape == (2, sum(module.lengths(geo)), DIMS) and module.lengths(geo)[1] == 0
    torch.testing.assert_close(tokens, loop_embedding(module, responses, geo), rtol=0, atol=1e-11)


def test_moving_the_whole_brain_changes_nothing():
    geo, module = geometry((21, 5, 16)), embedding()
    responses = torch.randn(2, 42, dtype=torch.float64)
    moved = geo._replace(coordinates=geo.coordinates.double() + torch.tensor([10.0, -30.0, 5.0]))
    still = geo._replace(coordinates=geo.coordinates.double())
    torch.testing.assert_close(module(responses, still), module(responses, moved))
    turned = geo._replace(coordinates=geo.coordinates.double()[:, [1, 2, 0]])
    assert not torch.allclose(module(responses, still), module(responses, turned))
