"""Datasets of single trials against slow loops."""

import numpy as np
import pytest
from nsd_tree import CLASSES, slow_store

from mmnfn.datasets import NSDDataset
from mmnfn.nsd import ROIStore
from mmnfn.nsd.preparation import prepare

SUBJECTS = ('subj01', 'subj02')


@pytest.fixture(scope='module')
def folder(tiny, tmp_path_factory):
    """Make stores of both subjects with single trials, and their images."""
    path = tmp_path_factory.mktemp('trials')
    prepare(tiny, path, SUBJECTS, image_size=16, roi_classes=CLASSES, trials=True, progress=False)
    return path


@pytest.fixture(scope='module')
def expected(tiny):
    return {subject: slow_store(tiny.root, subject) for subject in SUBJECTS}


def dataset(folder, **options):
    return NSDDataset(str(folder), [1, 2], 'images_16.h5', roi_names=CLASSES, **options)


def test_a_store_without_trials_is_refused(tiny, tmp_path):
    prepare(tiny, tmp_path, SUBJECTS, image_size=16, roi_classes=CLASSES, progress=False)
    store = ROIStore(tmp_path / 'subj01.h5')
    assert store.trial_row is None and store.trial_session is None
    for call in (
        lambda: store.trial_responses,
        lambda: len(dataset(tmp_path, average=False)),
        lambda: len(dataset(tmp_path, max_sessions=1)),
    ):
        with pytest.raises(ValueError, match='subj01.h5.* --trials'):
            call()


def test_more_sessions_than_the_store_has_are_refused(folder):
    with pytest.raises(ValueError, match='max_sessions is 2, but .*subj02.h5 has 1 sessions'):
        len(dataset(folder, max_sessions=2))
    with pytest.raises(ValueError, match='max_sessions is 0'):
        dataset(folder, max_sessions=0)


def loop(slow, average, sessions, split):
    """List image id, split and response of each sample of a subject trial by trial, and compute the noise ceiling."""
    trials, rows = slow['trials']
    voxels = np.concatenate([np.flatnonzero(slow[f'roi/{name}']) for name in CLASSES])
    seen, test_repeats = {}, {}
    for trial in range(750 * sessions):
        image, kind = slow['image_id'][rows[trial]], slow['split'][rows[trial]].decode()
        special = slow['seen_by_all'][rows[trial]]
        if special if split == 'special515' else kind == 'test':
            test_repeats[image] = test_repeats.get(image, 0) + 1
        chosen = special if split == 'special515' else split in (kind, 'all')
        if chosen:
            seen.setdefault(image if average else trial, []).append((image, kind, trials[trial][voxels]))
    samples = []
    for found in seen.values():
        values = np.stack([value for _, _, value in found])
        valid = ~np.isnan(values)
        response = np.where(valid, values, 0).sum(0) / np.maximum(valid.sum(0), 1)
        samples.append((found[0][0], found[0][1], response))
    noise = np.mean([1 / n for n in test_repeats.values()]) if average else 1
    ncsnr = slow['ncsnr'][voxels]
    return samples, 100 * ncsnr**2 / (ncsnr**2 + noise)


@pytest.mark.parametrize('split', ['train', 'test', 'special515', 'all'])
@pytest.mark.parametrize('average, sessions', [(True, None), (False, None), (True, 1), (False, 1)])
def test_datasets_against_a_slow_loop(folder, expected, average, sessions, split):
    data = dataset(folder, split=split, average=average, max_sessions=sessions)
    samples = [data[k] for k in range(len(data))]
    for subject, count in zip(SUBJECTS, (3, 1)):
        own = [sample for sample in samples if sample['subject'] == subject]
        wanted, ceiling = loop(expected[subject], average, sessions or count, split)
        assert len(own) == len(wanted)
        if average:
            wanted.sort(key=lambda sample: sample[0])
        for sample, (image, kind, response) in zip(own, wanted):
            assert sample['image_id'] == image and sample['split'] == kind
            assert sample['responses'].dtype == np.float32
            assert np.allclose(sample['responses'], response, rtol=1e-5, atol=1e-5)
            assert np.allclose(sample['noise_ceiling'], ceiling, rtol=1e-5, equal_nan=True)
            assert (sample['img'] == data.images[image]).all()


@pytest.mark.parametrize('average', [True, False])
def test_the_shuffled_control_stays_within_the_sessions(folder, average):
    """A response of the first session gets another image of that session, not a later one."""
    options = dict(split='all', average=average, max_sessions=1)
    plain, shuffled = (dataset(folder, shuffle_pairs=seed, **options) for seed in (None, 3))
    ids = [sorted({data.get_data_info(k)['image_id'] for k in range(len(data))}) for data in (plain, shuffled)]
    assert ids[0] == ids[1] and len(ids[0]) < len(dataset(folder, split='all'))


def test_the_shuffled_control_keeps_single_trials_together(folder):
    """All trials of an image go to the same other image."""
    plain, shuffled = (dataset(folder, split='test', average=False, shuffle_pairs=seed) for seed in (None, 3))
    moved = {}
    for k in range(len(plain)):
        one, two = plain.get_data_info(k), shuffled.get_data_info(k)
        assert (one['responses'] == two['responses']).all() and one['image_id'] != two['image_id']
        assert moved.setdefault((one['subject'], one['image_id']), two['image_id']) == two['image_id']
