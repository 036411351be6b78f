"""Maps of each subject's own voxels."""

import pytest
import torch

from mmnfn.models import VoxelEmbedding, subject_adapter
from mmnfn.models.subject_adapter import SubjectAdapter
from mmnfn.structures import SubjectGeometry

DIMS = 5


def geometry(subject='subj01', sizes=(21, 0, 6), seed=1):
    coordinates = 30 * torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(seed))
    return SubjectGeometry(subject, ('a', 'b', 'c'), sizes, coordinates)


def adapter(**kwargs):
    torch.manual_seed(0)
    return SubjectAdapter(DIMS, **kwargs).double()


def test_fourier_vectors_equal_loop():
    module, geo = adapter(num_features=6, subjects=[1, '2', 'subj03']), geometry('subj03')
    lengths = 2 * torch.pi / adapter(num_features=200, wavelengths=(10, 40)).frequencies.norm(dim=1)
    assert 10 <= lengths.min() < 12 and 35 < lengths.max() <= 40, 'in mm'
    for vector, place in zip(module(geo), geo.coordinates.double()):
        angles = [sum(f * x for f, x in zip(frequency, place)) for frequency in module.frequencies]
        features = torch.stack([a.sin() for a in angles] + [a.cos() for a in angles])
        torch.testing.assert_close(vector, module.maps[2].t() @ features, rtol=0, atol=1e-12)


@pytest.mark.parametrize('kind', ['fourier', 'table'])
def test_only_the_map_of_the_subject_gets_a_gradient(kind):
    module = adapter(kind=kind, max_voxels=30)
    module(geometry('subj05')).sin().sum().backward()
    moved = module.maps.grad.abs().sum(dim=(1, 2)) > 0
    assert moved.tolist() == [name == 'subj05' for name in module.subjects]


@pytest.mark.parametrize('kind', ['fourier', 'table'])
def test_term_of_the_tokens_equals_loop(kind):
    """Σ_i m_i·a(i) over the voxels of a token, added to the shared convolution."""
    torch.manual_seed(0)
    options = dict(kind=kind, max_voxels=30, num_features=4)
    module = VoxelEmbedding(3, DIMS, kernel_size=8, stride=4, position_dims=4, adapter=options).double()
    geo, responses = geometry(), torch.randn(2, 27, dtype=torch.float64)
    vectors, tokens = module.adapter(geo), module(responses, geo)
    module.adapter = None
    shared = module(responses, geo)
    starts = [0, 4, 8, 12, 21]  # the last is the short third ROI
    for number, start in enumerate(starts):
        end = min(start + 8, 27 if start == 21 else 21)
        for sample in range(2):
            own = sum(responses[sample, i] * vectors[i] for i in range(start, end))
            torch.testing.assert_close(tokens[sample, number] - shared[sample, number], own, rtol=0, atol=1e-12)


def test_a_roi_without_convolution_is_one_linear_map():
    torch.manual_seed(0)
    options = dict(kind='table', max_voxels=30)
    module = VoxelEmbedding(3, DIMS, position='none', adapter=options, convolution=False).double()
    geo, responses = geometry(), torch.randn(2, 27, dtype=torch.float64)
    assert module.lengths(geo) == (1, 0, 1)
    vectors, tokens = module.adapter(geo), module(responses, geo)
    for number, part in enumerate((slice(0, 21), slice(21, 27))):
        expected = responses[:, part] @ vectors[part] + module.bias[0]
        torch.testing.assert_close(tokens[:, number], expected, rtol=0, atol=1e-12)


def test_autocast_keeps_the_angles():
    module, geo = adapter(wavelengths=(8, 8)).float(), geometry()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = module(geo).float()
    assert (half - module(geo)).abs().max() < 0.05


def test_a_map_that_was_not_trained_with_the_others_is_named(monkeypatch):
    """Embeddings of a held-out subject would be noise that nobody notices."""
    module = adapter().eval()
    module(geometry('subj08'))  # no warning before any training
    module.trained_subjects[[0, 2]] = 1  # like NeuroFusionNet.loss
    copy = adapter().eval()
    copy.load_state_dict(module.state_dict())
    said = []
    monkeypatch.setattr(subject_adapter, 'print_log', lambda text, *_: said.append(text))
    for subject in ('subj03', 'subj08', 'subj08'):
        assert copy(geometry(subject)).isfinite().all()
    assert len(said) == 1 and said[0].startswith('subj08 was not trained with subj01, subj03: its map')
    copy.train()(geometry('subj07'))
    assert len(said) == 1


def test_data_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='subj02'):
        adapter(subjects=('subj01',))(geometry('subj02'))
    with pytest.raises(ValueError, match='27 voxels'):
        adapter(kind='table', max_voxels=26)(geometry())
