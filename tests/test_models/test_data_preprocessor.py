"""From the collated batch to the model's input."""

import pytest
import torch

from mmnfn.models import NFNDataPreprocessor
from mmnfn.structures import SubjectGeometry


def batch(**changes):
    inputs = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    geometry = SubjectGeometry('subj01', ('streams',), (3,), torch.zeros(3, 3))
    data = dict(inputs=inputs, responses=torch.randn(2, 3), image_id=torch.tensor([5, 6]), geometry=geometry)
    return {**data, **changes}


@pytest.mark.parametrize('to_rgb', [False, True])
def test_images_are_normalised_and_the_rest_is_kept(to_rgb):
    data = batch()
    out = NFNDataPreprocessor(mean=(1, 2, 3), std=(4, 5, 6), to_rgb=to_rgb)(data, training=True)
    assert out['inputs'].dtype == torch.float32 and data['inputs'].dtype == torch.uint8
    for channel, (mean, std) in enumerate(((1, 4), (2, 5), (3, 6))):
        given = data['inputs'][:, 2 - channel if to_rgb else channel].float()
        torch.testing.assert_close(out['inputs'][:, channel], (given - mean) / std)
    assert torch.equal(out['responses'], data['responses']) and torch.equal(out['image_id'], data['image_id'])
    assert out['geometry'] == data['geometry']


def test_every_tensor_is_moved():
    """The meta device stands for a GPU; a batch of several subjects has a list of geometries."""
    data = batch()
    data['geometry'] = [data['geometry'], data['geometry']._replace(subject='subj02')]
    out = NFNDataPreprocessor().to('meta')(data)
    tensors = [out['inputs'], out['responses'], out['image_id'], *(own.coordinates for own in out['geometry'])]
    assert all(tensor.device.type == 'meta' for tensor in tensors)
    assert [own.subject for own in out['geometry']] == ['subj01', 'subj02']


def test_bad_inputs_are_refused():
    for inputs in (None, torch.zeros(3, 4, 4), torch.zeros(2, 1, 4, 4), [torch.zeros(3, 4, 4)]):
        with pytest.raises(ValueError, match='inputs must be a tensor'):
            NFNDataPreprocessor()(batch(inputs=inputs))
