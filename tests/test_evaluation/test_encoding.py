"""The encoding metric by hand, over subjects and ranks, and in the simulated world."""

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from mmnfn.datasets import NSDDataset, PackNSDInputs, collate_subject_batch
from mmnfn.evaluation import (
    EncodingMetric,
    ResponseMetric,
    encoding,
    fit_encoding_model,
    gathered_metric,
    pearson_r,
)
from mmnfn.evaluation.dump import read_predictions
from mmnfn.nsd import NSDLayout, ROIStore
from mmnfn.structures import SubjectGeometry

ROIS = ('streams', 'floc-faces', 'floc-words')
SIZES = (3, 2, 0)
CEILING = torch.tensor([64.0, 64.0, 64.0, 36.0, 1.0])
NCSNR = torch.tensor([0.9, 0.9, 0.1, 0.9, 0.9])


def add(
    metric, features, responses, splits, subject, batch=10, ceiling=CEILING, ncsnr=NCSNR, photo_id=None, low_level=None
):
    """Give the metric the samples of a subject in batches."""
    geometry = SubjectGeometry(subject, ROIS, SIZES, torch.zeros(5, 3), torch.arange(5))
    for start in range(0, len(features), batch):
        part = slice(start, start + batch)
        samples = [
            dict(features=torch.tensor(f), bands=(2, 4), image_id=start + i) for i, f in enumerate(features[part])
        ]
        for sample, f in zip(samples, [] if low_level is None else low_level[part]):
            sample['low_level'] = torch.tensor(f)
        metric.process(
            dict(
                geometry=geometry,
                responses=torch.tensor(responses[part]),
                split=splits[part],
                noise_ceiling=ceiling,
                ncsnr=ncsnr,
                **({} if photo_id is None else dict(photo_id=photo_id[part])),
            ),
            samples,
        )


def evaluate(features, responses, splits, subjects=('subj04',), ceiling=CEILING, **settings):
    """Evaluate, and remove the prefix of the names."""
    metric = EncodingMetric(**settings)
    for subject in subjects:
        add(metric, features, responses, splits, subject, ceiling=ceiling)
    return {key.partition('/')[2]: v for key, v in metric.evaluate(len(features) * len(subjects)).items()}


@pytest.fixture(scope='module')
def known():
    """Make features, noisy responses with a constant last voxel, and the split, every third image for testing."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(90, 6)).astype(np.float32)
    responses = (features @ rng.normal(size=(6, 5)) + rng.normal(size=(90, 5))).astype(np.float32)
    responses[:, 4] = 0.1
    return features, responses, ['test' if i % 3 == 0 else 'train' for i in range(90)]


def test_metrics_by_hand(known):
    features, responses, splits = known
    metrics = evaluate(*known, bootstraps=200, min_ceiling=36)  # exactly that of voxel 3
    test = np.arange(90) % 3 == 0
    outcome = fit_encoding_model(features[~test], responses[~test], features[test], responses[test], bootstraps=200)
    r = outcome.r
    assert np.isnan(r[4]) and (r[:4] > 0.5).all()
    assert metrics['pcc'] == pytest.approx(r[:4].mean()) == pytest.approx(metrics['subj04_pcc'])
    assert metrics['pcc_roi_streams'] == pytest.approx(r[:3].mean())
    assert metrics['pcc_roi_floc-faces'] == pytest.approx(r[3])
    assert not [key for key in metrics if 'floc-words' in key], 'the subject lacks it'
    assert metrics['pcc_normalized'] == pytest.approx(np.mean([r[0] / 0.8, r[1] / 0.8, r[2] / 0.8, r[3] / 0.6]))
    assert metrics['pcc_normalized_roi_floc-faces'] == pytest.approx(r[3] / 0.6)
    assert metrics['pcc_reliable'] == pytest.approx(r[[0, 1, 3]].mean())
    ceiling = (3 * 0.8 + 0.6) / 4  # without the constant voxel
    assert metrics['ceiling'] == metrics['subj04_ceiling'] == pytest.approx(ceiling)
    assert metrics['ceiling_roi_streams'] == pytest.approx(0.8)
    counts = {key: metrics[key] for key in metrics if key.startswith('voxels')}
    assert counts == dict(voxels=5, voxels_constant=1, voxels_normalized=4, voxels_reliable=3)
    low, high = np.percentile(outcome.resampled[:, :4].mean(1), (2.5, 97.5))
    assert (metrics['pcc_low'], metrics['pcc_high']) == (pytest.approx(low), pytest.approx(high))
    assert metrics['pcc_low'] < metrics['pcc'] < metrics['pcc_high']
    assert metrics['pcc_se'] == pytest.approx(outcome.resampled[:, :4].mean(1).std(ddof=1), rel=1e-5)
    assert metrics['pcc_roi_floc-faces_high'] == pytest.approx(np.percentile(outcome.resampled[:, 3], 97.5))


def test_a_voxel_in_two_rois_counts_in_both_and_once_among_all(known):
    """NSD's streams contain nearly all of the other classes."""
    features, responses, splits = known
    twice = [3, 0, 1, 3, 2, 4]  # faces: voxels 3 and 0; streams: 1, 3, 2, 4
    index = torch.tensor([4, 0, 1, 4, 2, 3])
    geometry = SubjectGeometry('subj04', ('floc-faces', 'streams'), (2, 4), torch.zeros(6, 3), index)
    metric = EncodingMetric(bootstraps=200)
    batch = dict(geometry=geometry, responses=torch.tensor(responses[:, twice]), split=splits)
    batch.update(noise_ceiling=CEILING[twice], ncsnr=NCSNR[twice])
    metric.process(batch, [dict(features=torch.tensor(f), image_id=i) for i, f in enumerate(features)])
    metrics = {key.partition('/')[2]: value for key, value in metric.evaluate(90).items()}
    test = np.arange(90) % 3 == 0
    r = fit_encoding_model(features[~test], responses[~test], features[test], responses[test], bootstraps=2).r
    assert metrics['pcc_roi_floc-faces'] == pytest.approx(r[[3, 0]].mean())
    assert metrics['pcc_roi_streams'] == pytest.approx(r[[1, 3, 2]].mean())
    once = evaluate(*known, bootstraps=200)
    overall = [key for key in once if '_roi_' not in key]
    assert {key: metrics[key] for key in overall} == pytest.approx({key: once[key] for key in overall})


def test_metrics_are_means_over_subjects(known):
    """The second subject has noisier responses and other ceilings."""
    rng = np.random.default_rng(4)
    metric, metrics, resampled = EncodingMetric(bootstraps=50), {}, {}
    for subject, noise, ceiling in (('subj04', 0, CEILING), ('subj07', 4, CEILING / 4)):
        features, responses, splits = known
        responses = responses + noise * rng.normal(size=responses.shape).astype(np.float32) * (np.arange(5) < 4)
        for one in (metric, EncodingMetric(bootstraps=50)):
            add(one, features, responses, splits, subject, ceiling=ceiling)
        metrics[subject] = one.evaluate(90)
        test = np.arange(90) % 3 == 0
        arrays = features[~test], responses[~test], features[test], responses[test]
        resampled[subject] = fit_encoding_model(*arrays, bootstraps=50).resampled[:, :4].mean(1)
    both, (one, two) = metric.evaluate(180), metrics.values()
    assert one['encoding/pcc'] > two['encoding/pcc'] + 0.1
    for name in ('pcc', 'pcc_normalized', 'pcc_reliable', 'pcc_roi_streams', 'ceiling', 'ceiling_roi_floc-faces'):
        key = f'encoding/{name}'
        assert both[key] == pytest.approx((one[key] + two[key]) / 2)
        for subject, own in metrics.items():
            assert both[f'encoding/{subject}_{name}'] == pytest.approx(own[key])
    assert one['encoding/ceiling'] == pytest.approx(2 * two['encoding/ceiling'])
    mean = np.mean(list(resampled.values()), axis=0)
    assert [both['encoding/pcc_low'], both['encoding/pcc_high']] == pytest.approx(np.percentile(mean, (2.5, 97.5)))
    assert both['encoding/pcc_se'] == pytest.approx(mean.std(ddof=1))


def test_intervals_are_over_the_images_of_all_subjects(known):
    """Two subjects with the same data have the interval of one, even if one has not seen all test images."""
    features, responses, splits = known
    fewer = [split if i != 42 else 'train' for i, split in enumerate(splits)]
    widths = []
    for parts in ([splits], [fewer], [splits, splits], [splits, fewer]):
        metric = EncodingMetric(bootstraps=400)
        for number, own in enumerate(parts):
            add(metric, features, responses, own, f'subj0{number + 1}')
        metrics = metric.evaluate(90 * len(parts))
        widths.append(metrics['encoding/pcc_se'])
    assert widths[2] == pytest.approx(widths[0])
    assert widths[3] == pytest.approx(np.mean(widths[:2]), rel=0.15), 'independent draws would give 0.7 of it'


@pytest.mark.parametrize('kind', ['trials', 'crops'])
def test_trials_of_an_image_and_crops_of_a_photograph_are_drawn_together(known, kind):
    """Three nearly equal trials or crops of each image have the interval of one."""
    features, responses, splits = known
    noise = 1e-4 * np.random.default_rng(0).normal(size=(3, *responses.shape)).astype(np.float32)
    noise[..., 4] = 0
    single, triple = EncodingMetric(bootstraps=400), EncodingMetric(bootstraps=400)
    add(single, features, responses, splits, 'subj01')
    if kind == 'trials':
        for trial in noise:
            add(triple, features, responses + trial, splits, 'subj01')
    else:
        tripled = np.concatenate([features] * 3), (responses + noise).reshape(-1, 5), splits * 3
        add(triple, *tripled, 'subj01', photo_id=torch.arange(270) % 90)
    one, three = single.evaluate(90), triple.evaluate(270)
    for key in ('pcc', 'pcc_se', 'pcc_low', 'pcc_high'):
        assert three[f'encoding/{key}'] == pytest.approx(one[f'encoding/{key}'], rel=0.05)


@pytest.mark.parametrize('banded', [False, True])
def test_unique_part_is_the_difference_of_two_fits_over_the_same_drawn_images(known, banded):
    """Low-level features know half of the signal; intervals against a loop over resamplings."""
    features, responses, splits = known
    low_level = features[:, :3] + np.random.default_rng(5).normal(size=(90, 3)).astype(np.float32)
    metric = EncodingMetric(bootstraps=40, banded=banded)
    add(metric, *known, 'subj04', low_level=low_level)
    metrics = {key.partition('/')[2]: value for key, value in metric.evaluate(90).items()}
    without = evaluate(*known, bootstraps=40, banded=banded)
    assert {key: metrics[key] for key in without} == without

    test = np.arange(90) % 3 == 0

    def predict(x, bands):
        return fit_encoding_model(x[~test], responses[~test], x[test], responses[test], bands=bands, bootstraps=2)[0]

    bands = (2, 4) if banded else (6,)
    alone = predict(low_level, None)
    both = predict(np.concatenate([features, low_level], 1), (*bands, 3))
    drawn = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), 40)
    for name, prediction in (('pcc_unique', both), ('pcc_over_low_level', predict(features, bands))):
        for group, voxels in (('', range(4)), ('_roi_streams', range(3)), ('_roi_floc-faces', (3,))):
            differences = []
            for times in [np.ones(30, int), *drawn]:
                y, p, a = (np.repeat(values, times, axis=0) for values in (responses[test], prediction, alone))
                r = [np.corrcoef(p[:, v], y[:, v])[0, 1] - np.corrcoef(a[:, v], y[:, v])[0, 1] for v in voxels]
                differences.append(np.mean(r))
            expected = [differences[0], *np.percentile(differences[1:], (2.5, 97.5))]
            for subject in ('', 'subj04_'):
                found = [metrics[f'{subject}{name}{group}{end}'] for end in ('', '_low', '_high')]
                assert found == pytest.approx(expected, abs=1e-5)
    assert metrics['pcc_unique_low'] > 0.05


def test_a_backbone_that_knows_no_more_has_no_unique_part(known):
    rng = np.random.default_rng(6)
    metric = EncodingMetric(bootstraps=200, banded=True)
    noise = rng.normal(size=(90, 6)).astype(np.float32)
    add(metric, noise, *known[1:], 'subj04', low_level=known[0])
    metrics = metric.evaluate(90)
    assert abs(metrics['encoding/pcc_unique']) < 0.02
    assert metrics['encoding/pcc_over_low_level_high'] < -0.3


@pytest.mark.parametrize(
    'meta, flags, said',
    [
        (dict(subjects=[1, 4], split='train'), dict(subj04=1, subj07=0, images=0), 'data of subj04, say'),
        (dict(mmnfn=dict(subjects='subj07')), dict(subj04=0, subj07=1, images=0), 'data of subj07, say'),
        (dict(subjects=[1], split='all'), dict(subj04=0, subj07=0, images=1), "the test images (split 'all'), say"),
        (dict(subjects=[1, 2]), dict(subj04=0, subj07=0, images=0), ''),
        (dict(epoch=3), {}, ''),
    ],
)
def test_training_data_is_flagged_and_logged(known, monkeypatch, meta, flags, said):
    lines = []
    monkeypatch.setattr(encoding, 'print_log', lambda text, *_: lines.append(text))
    metric = EncodingMetric(bootstraps=20)
    for subject in ('subj04', 'subj07'):
        add(metric, *known, subject)
    metric.note_training(meta)
    metrics = {key.partition('/')[2]: value for key, value in metric.evaluate(180).items()}
    found = {key.replace('_trained_on', '').replace('test_', ''): metrics[key] for key in metrics if 'trained' in key}
    assert found == flags
    assert [f'The backbone was trained on {said}' in line for line in lines] == [True] * bool(said)


def test_each_rank_may_have_subjects_of_its_own(known, monkeypatch):
    ranks = [EncodingMetric(bootstraps=20) for _ in range(2)]
    for rank, subject in zip(ranks, ('subj04', 'subj07')):
        add(rank, *known, subject)
    together = EncodingMetric(bootstraps=20)
    for subject in ('subj04', 'subj07'):
        add(together, *known, subject)
    results = [result for rank in ranks for result in rank.results]
    monkeypatch.setattr(encoding, 'all_gather_object', lambda _: [dict(rank._voxels) for rank in ranks])
    monkeypatch.setattr(gathered_metric, 'collect_results', lambda *_: results)
    metrics = ranks[0].evaluate(180)
    monkeypatch.undo()
    assert metrics == together.evaluate(180)


@pytest.mark.parametrize('outcome', [dict(metric=1.0), ValueError('rank 0 failed')])
def test_rank_0_computes_and_hands_metrics_or_error_to_all_ranks(known, monkeypatch, outcome):
    metric = EncodingMetric(bootstraps=20)
    add(metric, *known, 'subj04')
    monkeypatch.setattr(metric, 'compute_metrics', None)
    monkeypatch.setattr(gathered_metric, 'is_main_process', lambda: False)
    monkeypatch.setattr(gathered_metric, 'collect_results', lambda *_: None)
    monkeypatch.setattr(gathered_metric, 'broadcast_object_list', lambda outcomes: outcomes.__setitem__(0, outcome))
    if isinstance(outcome, dict):
        assert metric.evaluate(90) == outcome
    else:
        with pytest.raises(ValueError, match='rank 0 failed'):
            metric.evaluate(90)


def test_per_subject_and_bands_can_be_chosen(known):
    metrics = evaluate(*known, subjects=('subj04', 'subj07'), bootstraps=20)
    assert metrics['subj04_pcc'] == metrics['subj07_pcc'] == pytest.approx(metrics['pcc'])
    assert metrics['voxels'] == 10
    quiet = evaluate(*known, subjects=('subj04', 'subj07'), bootstraps=20, per_subject=False)
    assert not [key for key in quiet if key.startswith('subj')]
    banded = evaluate(*known, bootstraps=20, banded=True)
    assert banded['pcc'] != metrics['pcc'] and banded['pcc'] == pytest.approx(metrics['pcc'], abs=0.1)


@pytest.mark.parametrize('factor', [0, float('nan')])
def test_a_subject_without_such_voxels_counts_in_no_mean_over_subjects(known, factor):
    metric = EncodingMetric(bootstraps=20)
    add(metric, *known, 'subj04')
    add(metric, *known, 'subj07', ceiling=CEILING * factor)
    metrics = metric.evaluate(180)
    for end in ('', '_low', '_high'):
        key = f'pcc_normalized{end}'
        assert metrics[f'encoding/{key}'] == pytest.approx(metrics[f'encoding/subj04_{key}'])
        assert np.isnan(metrics[f'encoding/subj07_{key}'])
    assert metrics['encoding/voxels_normalized'] == 4 and metrics['encoding/subj07_pcc'] > 0.5


def test_noise_free_signals_reach_the_simulated_worlds_ceiling(world, store):
    """With noise-free responses as features, r is the true ceiling within the bootstrap interval."""
    dataset = NSDDataset(store, [1], 'images_32.h5', split='all', roi_names=('prf-visualrois',))
    samples = [dataset[i] for i in range(len(dataset))]
    with h5py.File(world / 'truth.h5') as truth:
        group = truth['subj01']
        rows = np.searchsorted(group['image_id'][()], [s['image_id'] for s in samples])
        signal, true_ncsnr = group['responses'][()][rows], group['ncsnr'][()]
        place = {tuple(v): i for i, v in enumerate(group['voxel'][()])}
    own = ROIStore(store / 'subj01.h5')
    columns = np.asarray([place[tuple(v)] for v in own.location['voxel'][own.roi('prf-visualrois')]])
    responses = np.stack([s['responses'] for s in samples])
    test = np.asarray([s['split'] == 'test' for s in samples])
    r, resampled, ceilings = [], [], []
    for voxel in range(0, len(columns), 5):  # a voxel's own noise-free signal is its feature
        x, y = signal[:, columns[[voxel]]], responses[:, [voxel]]
        outcome = fit_encoding_model(x[~test], y[~test], x[test], y[test], bootstraps=200)
        ratio = true_ncsnr[columns[voxel]] ** 2
        r.append(outcome.r[0])
        resampled.append(outcome.resampled[:, 0])
        ceilings.append(np.sqrt(ratio / (ratio + 1 / 3)))
    low, high = np.percentile(np.nanmean(resampled, 0), (0.5, 99.5))
    assert low < np.mean(ceilings) < high
    assert np.corrcoef(r, ceilings)[0, 1] > 0.5


@pytest.mark.parametrize('seed', [None, 0])
def test_metric_writes_maps_at_the_places_of_the_voxels(world, store, tmp_path, seed):
    """In the ROI files' volume; a control that moves voxels does not move the map."""
    rois = ('floc-faces', 'streams')
    dataset = NSDDataset(store, [1], 'images_32.h5', split='all', roi_names=rois, permute_positions=seed)
    batch = collate_subject_batch([PackNSDInputs().transform(dataset[i]) for i in range(0, len(dataset), 4)])
    metric = EncodingMetric(bootstraps=5, map_dir=str(tmp_path), data_root=str(store))
    features = np.random.default_rng(0).normal(size=(len(batch['split']), 5)).astype(np.float32)
    metric.process(batch, [dict(features=torch.tensor(f), image_id=i) for f, i in zip(features, batch['image_id'])])
    metrics = metric.evaluate(len(features))
    image = nib.load(tmp_path / 'subj01_pcc.nii.gz')
    reference = nib.load(NSDLayout(world / 'nsd').roi_file('subj01', 'streams'))
    assert image.shape == reference.shape and np.allclose(image.affine, reference.affine)
    volume = image.get_fdata()
    assert (~np.isnan(volume)).sum() == metrics['encoding/voxels'] - metrics['encoding/voxels_constant']
    test = np.asarray(batch['split']) == 'test'
    responses = batch['responses'].numpy()
    r = fit_encoding_model(features[~test], responses[~test], features[test], responses[test], bootstraps=2).r
    own, size = ROIStore(store / 'subj01.h5'), batch['geometry'].roi_sizes[0]
    for part, name in ((slice(0, size), 'floc-faces'), (slice(size, None), 'streams')):
        with h5py.File(store / 'subj01.h5') as file:
            voxel = file['voxel'][()][own.roi(name)]
        found = volume[tuple(voxel.T)]
        assert np.allclose(found, r[part], atol=1e-5, equal_nan=True) and np.nanstd(found) > 0.02
        assert name != 'streams' or (np.asarray(reference.dataobj)[tuple(voxel.T)] > 0).all()


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match='bootstraps is 1; an interval needs at least 2'):
        EncodingMetric(bootstraps=1)
    with pytest.raises(ValueError, match='map_dir is given without data_root'):
        EncodingMetric(map_dir=str(tmp_path))


def test_predictions_of_test_images_are_kept(known, tmp_path):
    """Of all subjects, in order, with what is needed to score them."""
    path = tmp_path / 'a/predictions.pkl'
    metric = EncodingMetric(bootstraps=5, prediction_file=str(path))
    for subject in ('subj07', 'subj04'):
        add(metric, *known, subject, photo_id=torch.arange(90) // 2)
    metrics = metric.evaluate(180)
    predictions = read_predictions(path)
    keys = [(p['subject'], p['image_id'], p['photo_id']) for p in predictions]
    assert keys == [(subject, i, i // 2) for subject in ('subj04', 'subj07') for i in range(0, 90, 3)]
    own = predictions[:30]
    assert np.array_equal([p['responses'] for p in own], known[1][::3])
    r = pearson_r(*(np.stack([p[key] for p in own]) for key in ('predicted_responses', 'responses')))
    assert metrics['encoding/subj04_pcc'] == pytest.approx(np.nanmean(r))
    voxels = own[0]['voxels']
    assert voxels['index'].tolist() == [0, 1, 2, 3, 4] and own[-1]['voxels'] is voxels, 'once in the file'
    assert metrics['encoding/subj04_pcc_roi_streams'] == pytest.approx(r[voxels['rois']['streams']].mean())


def test_response_metric_scores_predictions_as_they_are(store):
    """Predictions that are the responses plus noise: r voxel by voxel, each voxel once, by ROI and subject."""
    dataset = NSDDataset(str(store), [1, 2], 'images_32.h5', 'test', pipeline=[PackNSDInputs()])
    metric, expected, rng = ResponseMetric(bootstraps=10), {}, np.random.default_rng(0)
    for subject, own in dataset.subject_indices().items():
        batch = collate_subject_batch([dataset[i] for i in own])
        predicted = batch['responses'] + torch.from_numpy(rng.normal(size=batch['responses'].shape))
        samples = [dict(image_id=i, predicted_responses=p) for i, p in zip(batch['image_id'], predicted)]
        metric.process(batch, samples)
        _, first = np.unique(batch['geometry'].voxels.numpy(), return_index=True)
        pairs = zip(predicted.numpy()[:, first].T, batch['responses'].numpy()[:, first].T)
        expected[subject] = np.nanmean([np.corrcoef(*pair)[0, 1] for pair in pairs])
    found = metric.evaluate(len(dataset))
    for subject, r in expected.items():
        assert found[f'response/{subject}_pcc'] == pytest.approx(r, abs=1e-6)
    assert found['response/pcc'] == pytest.approx(np.mean(list(expected.values())), abs=1e-6)
    assert found['response/pcc_low'] < found['response/pcc'] < found['response/pcc_high']
    assert 'response/pcc_roi_streams' in found and 'response/subj01_trained_on' not in found
