"""From the collated batch to the model's input."""

import pytest
import torch

from mmnfn.models import NFNDataPreprocessor
from mmnfn.structures import SubjectGeometry


def batch():
    geometry = SubjectGeometry('subj01', ('streams',), (3,), torch.zeros(3, 3))
    return dict(
        inputs=torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8),
        responses=torch.randn(2, 3),
        image_id=torch.tensor([5, 6]),
        geometry=geometry,
    )


def test_images_are_normalised_and_the_rest_is_kept():
    data = batch()
    out = NFNDataPreprocessor(mean=(1, 2, 3), std=(4, 5, 6))(data, training=True)
    assert out['inputs'].dtype == torch.float32
    for channel, (mean, std) in enumerate(((1, 4), (2, 5), (3, 6))):
        torch.testing.assert_close(out['inputs'][:, channel], (data['inputs'][:, channel].float() - mean) / std)
    assert data['inputs'].dtype == torch.uint8
    assert torch.equal(out['responses'], data['responses']) and torch.equal(out['image_id'], data['image_id'])
    assert isinstance(out['geometry'], SubjectGeometry)
    assert out['geometry'].roi_names == ('streams',) and out['geometry'].roi_sizes == (3,)


def test_channels_are_reversed_on_request():
    data = batch()
    plain = NFNDataPreprocessor(mean=(0, 0, 0), std=(1, 1, 1))(data)['inputs']
    reversed_ = NFNDataPreprocessor(mean=(0, 0, 0), std=(1, 1, 1), to_rgb=True)(data)['inputs']
    assert torch.equal(plain, reversed_[:, [2, 1, 0]])


def test_every_tensor_goes_to_the_device():
    """The meta device stands for a GPU."""
    out = NFNDataPreprocessor().to('meta')(batch())
    tensors = [out['inputs'], out['responses'], out['image_id'], out['geometry'].coordinates]
    assert all(tensor.device.type == 'meta' for tensor in tensors)


def test_geometries_are_moved_once():
    """Data workers give a copy of them in each batch."""
    preprocessor, first = NFNDataPreprocessor().to('meta'), batch()
    moved = preprocessor(first)['geometry']
    copied = first['geometry']._replace(coordinates=first['geometry'].coordinates.clone())
    assert preprocessor(dict(batch(), geometry=copied))['geometry'] is moved
    for change in (dict(coordinates=torch.ones(3, 3)), dict(roi_names=('floc-faces',)), dict(voxels=torch.arange(3))):
        other = preprocessor(dict(batch(), geometry=first['geometry']._replace(**change)))['geometry']
        assert other is not moved and other.coordinates.device.type == 'meta'
    listed = preprocessor(dict(batch(), geometry=[copied, copied._replace(subject='subj02')]))['geometry']
    assert [geometry.subject for geometry in listed] == ['subj01', 'subj02']


@pytest.mark.parametrize('inputs', [None, torch.zeros(3, 4, 4), torch.zeros(2, 1, 4, 4), [torch.zeros(3, 4, 4)]])
def test_other_inputs_are_refused(inputs):
    with pytest.raises(ValueError, match='inputs must be a tensor'):
        NFNDataPreprocessor()({**batch(), 'inputs': inputs})


@pytest.mark.parametrize(
    'kwargs, word',
    [(dict(mean=(1, 2)), 'mean'), (dict(std=(1, 2)), 'std'), (dict(std=(1, 0, 1)), 'std must be positive')],
)
def test_bad_statistics_are_refused(kwargs, word):
    with pytest.raises(ValueError, match=word):
        NFNDataPreprocessor(**kwargs)
