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


def test_every_tensor_is_moved_and_a_geometry_only_once():
    """The meta device stands for a GPU; data workers send a copy of the geometry with each batch."""
    preprocessor, first = NFNDataPreprocessor().to('meta'), batch()
    out, geometry = preprocessor(first), first['geometry']
    tensors = [out['inputs'], out['responses'], out['image_id'], out['geometry'].coordinates]
    assert all(tensor.device.type == 'meta' for tensor in tensors)
    copied = geometry._replace(coordinates=geometry.coordinates.clone())
    assert preprocessor(batch(geometry=copied))['geometry'] is out['geometry']
    for change in (dict(coordinates=torch.ones(3, 3)), dict(roi_names=('floc-faces',)), dict(voxels=torch.arange(3))):
        other = preprocessor(batch(geometry=geometry._replace(**change)))['geometry']
        assert other is not out['geometry'] and other.coordinates.device.type == 'meta'
    listed = preprocessor(batch(geometry=[copied, copied._replace(subject='subj02')]))['geometry']
    assert [geometry.subject for geometry in listed] == ['subj01', 'subj02']


def test_bad_inputs_and_statistics_are_refused():
    for inputs in (None, torch.zeros(3, 4, 4), torch.zeros(2, 1, 4, 4), [torch.zeros(3, 4, 4)]):
        with pytest.raises(ValueError, match='inputs must be a tensor'):
            NFNDataPreprocessor()(batch(inputs=inputs))
    for kwargs, words in ((dict(mean=(1, 2)), 'mean'), (dict(std=(1, 0, 1)), 'std must be positive')):
        with pytest.raises(ValueError, match=words):
            NFNDataPreprocessor(**kwargs)
