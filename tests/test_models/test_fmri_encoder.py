"""The whole fMRI tower."""

import pytest
import torch
from small_configs import ENCODER, ROI_NAMES

from mmnfn.models import FMRIEncoder
from mmnfn.models.roi_readout import ROIReadout
from mmnfn.structures import SubjectGeometry


def encoder(**kwargs):
    torch.manual_seed(0)
    return FMRIEncoder(**{**ENCODER, **kwargs}).double().eval()


def data(sizes=(90, 31, 50), batch=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    coordinates = 30 * torch.randn(sum(sizes), 3, generator=generator)
    responses = torch.randn(batch, sum(sizes), generator=generator)
    return responses, SubjectGeometry('subj01', ROI_NAMES, tuple(sizes), coordinates)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(merge='concat'),
        dict(with_cp=True),
        dict(adapter=dict(num_features=6)),
        dict(adapter=dict(kind='table', max_voxels=200)),
        dict(adapter=dict(kind='table', max_voxels=200), convolution=False, position='none'),
        dict(position='1d'),
        dict(position='none'),
        dict(share_weights=False),
        dict(multi_scale=False),
        dict(interaction_layers=0),
        dict(tail='pad'),
        dict(drop_rate=0.1, drop_path_rate=0.1),
    ],
    ids=str,
)
def test_every_option_encodes_and_trains_all_parameters_whatever_rois_are_there(options):
    module = encoder(**options).train()
    for sizes in ((90, 31, 50), (90, 0, 3), (0, 0, 50)):
        features = module(*data(sizes))
        assert features.rois.shape == (4, 3, 24) and features.context.shape == (4, 24)
        assert features.present.tolist() == 4 * [[size > 0 for size in sizes]]
        assert (features.rois[~features.present] == 0).all()
        module.zero_grad()
        (features.rois.sum() + features.context.sum()).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_roi_feature_depends_on_its_own_voxels_only_and_the_context_on_all():
    module, (responses, geometry) = encoder(), data()
    features = module(responses, geometry)
    for k, part in enumerate((slice(0, 90), slice(90, 121), slice(121, 171))):
        changed = responses.clone()
        changed[:, part] += torch.randn(4, part.stop - part.start)
        other = module(changed, geometry)
        same = [torch.allclose(features.rois[:, j], other.rois[:, j], rtol=0, atol=1e-12) for j in range(3)]
        assert same == [j != k for j in range(3)]
        assert not torch.allclose(features.context, other.context)


@pytest.mark.parametrize('interaction_layers', [0, 1])
def test_absent_roi_is_left_out(interaction_layers):
    """The parameters of an absent ROI do not matter."""
    module, (responses, geometry) = encoder(interaction_layers=interaction_layers), data((90, 0, 50))
    before = module(responses, geometry)
    with torch.no_grad():
        module.readout.linear.bias[1] += 5
        module.readout.queries[:, 1] += 5
        if interaction_layers:
            module.interaction.roi_embedding[1] += 5
    after = module(responses, geometry)
    assert torch.equal(before.rois, after.rois) and torch.equal(before.context, after.context)


def test_samples_of_a_batch_do_not_mix():
    module, (responses, geometry) = encoder(), data()
    order = torch.tensor([2, 0, 3])
    features, permuted = module(responses, geometry), module(responses[order], geometry)
    torch.testing.assert_close(features.rois[order], permuted.rois)
    torch.testing.assert_close(features.context[order], permuted.context)


def test_checkpointing_changes_nothing():
    responses, geometry = data()
    gradients = []
    for with_cp in (False, True):
        module = encoder(with_cp=with_cp).train()
        module(responses, geometry).context.square().sum().backward()
        gradients.append([parameter.grad for parameter in module.timeformer.parameters()])
    for plain, again in zip(*gradients):
        assert torch.equal(plain, again)


def test_gradcheck():
    """Analytic gradients of responses and parameters against differences, with adapter and all scales."""
    sizes = dict(embed_dims=4, out_dims=4, mlp_ratio=1.0, kernel_size=4, stride=2, window_size=4, window_stride=2)
    module = encoder(**sizes, num_queries=1, position_dims=2, adapter=dict(num_features=4))
    responses, geometry = data((9, 0, 5), batch=2)
    parameters = [
        module.embedding.response_weight,
        module.embedding.adapter.maps,
        module.timeformer.layers[0].attention.qkv.weight,
    ]

    def run(responses, *_):
        features = module(responses, geometry)
        return features.rois, features.context

    assert torch.autograd.gradcheck(run, (responses.double().requires_grad_(), *parameters))


def test_readout_equals_loop():
    torch.manual_seed(0)
    readout = ROIReadout(num_rois=2, embed_dims=4, out_dims=3, num_queries=2, num_scales=2).double()
    scales = [(torch.randn(2, 8, 4, dtype=torch.float64), (5, 3)), (torch.randn(2, 11, 4, dtype=torch.float64), (7, 4))]
    out = readout(scales)
    for b in range(2):
        for k in range(2):
            pooled = []
            for scale, (tokens, lengths) in enumerate(scales):
                first = sum(lengths[:k])
                roi = readout.norms[scale](tokens[b, first : first + lengths[k]])
                for query in readout.queries[scale, k]:
                    weights = torch.stack([(query @ token).exp() for token in roi])
                    pooled.append(sum(w * token for w, token in zip(weights, roi)) / weights.sum())
            expected = readout.linear.weight[k] @ torch.cat(pooled) + readout.linear.bias[k]
            torch.testing.assert_close(out[b, k], expected, rtol=0, atol=1e-12)


def test_multi_scale_reads_the_first_layer_too():
    """If the second layer is cut off, only the multi-scale read-out still trains the first."""
    for multi_scale, reached in ((True, True), (False, False)):
        module = encoder(multi_scale=multi_scale)
        module.timeformer.layers[1].register_forward_hook(lambda _, __, out: out.detach())
        module(*data()).rois.sum().backward()
        assert (module.timeformer.layers[0].mlp[0].weight.grad is not None) is reached


def test_data_that_does_not_fit_is_refused():
    module, (responses, geometry) = encoder(), data()
    with pytest.raises(ValueError, match="'floc-words'.*'floc-faces'"):
        module(responses, geometry._replace(roi_names=('prf-visualrois', 'floc-words', 'streams')))
    with pytest.raises(ValueError, match=r'responses must have shape \(B, 171\) .* but got \(4, 170\)'):
        module(responses[:, 1:], geometry)
    with pytest.raises(ValueError, match=r'coordinates \(171, 3\), but got .* \(171, 2\)'):
        module(responses, geometry._replace(coordinates=geometry.coordinates[:, :2]))
    with pytest.raises(ValueError, match='roi_sizes of subj01'):
        module(responses[:, :0], geometry._replace(roi_sizes=(0, 0, 0), coordinates=geometry.coordinates[:0]))


@pytest.mark.parametrize(
    'options, word',
    [
        (dict(roi_names=('streams', 'streams')), 'roi_names'),
        (dict(num_heads=3), 'num_heads'),
        (dict(window_size=6, window_stride=4), 'window_size a multiple'),
        (dict(position='2d'), 'position'),
        (dict(convolution=False), 'convolution=False needs an adapter'),
        (dict(adapter=dict(kind='table')), 'max_voxels'),
        (dict(adapter=dict(subjects=('subj01', 1))), 'subjects'),
        (dict(adapter=dict(wavelengths=(9, 3))), 'wavelengths'),
    ],
    ids=str,
)
def test_bad_arguments_are_named(options, word):
    with pytest.raises(ValueError, match=word):
        encoder(**options)
