"""Dataset, sampler and collation: correct pairs, subject-pure batches, every sample used."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from mmnfn.datasets import NSDDataset, SubjectBatchSampler, collate_subject_batch
from mmnfn.nsd import ROI_CLASSES, ROIStore, StimulusImages
from mmnfn.nsd.store import atomic_h5


def make_dataset(store, **kwargs):
    config = dict(subjects=[1, 2], images='images_32.h5', pipeline=[dict(type='mmnfn.PackNSDInputs')])
    return NSDDataset(str(store), **{**config, **kwargs})


class Ranked(DefaultSampler):
    """Sample as one of several ranks."""

    def __init__(self, dataset, rank, world_size, shuffle=True, seed=0):
        super().__init__(dataset, shuffle, seed)
        self.rank, self.world_size = rank, world_size


@pytest.mark.parametrize('split, rois', [('train', ROI_CLASSES), ('test', ROI_CLASSES[::-2]), ('all', ROI_CLASSES)])
def test_samples_are_rows_of_the_store(store, split, rois):
    dataset = make_dataset(store, split=split, roi_names=rois)
    stores = {s: ROIStore(store / f'{s}.h5') for s in ('subj01', 'subj02')}
    images = StimulusImages(store / 'images_32.h5')
    wanted = {(s, int(i)) for s, f in stores.items() for i, p in zip(f.image_id, f.split) if split in (p, 'all')}
    found = set()
    for k in range(len(dataset)):
        sample = dataset[k]
        file = stores[sample['geometry'].subject]
        row = int(np.flatnonzero(file.image_id == sample['image_id'])[0])
        voxels = np.concatenate([file.roi(name) for name in rois])
        assert sample['geometry'].roi_sizes == tuple(len(file.roi(name)) for name in rois)
        assert (sample['responses'].numpy() == file.responses[row][voxels]).all()
        assert (sample['geometry'].coordinates.numpy() == file.coordinates[voxels]).all()
        assert (sample['inputs'].numpy() == images[sample['image_id']].transpose(2, 0, 1)).all()
        assert sample['split'] == file.split[row]
        found.add((file.subject, sample['image_id']))
    assert found == wanted and len(dataset) == len(wanted)


def responses_by_image(dataset, subject, split):
    samples = [dataset[k] for k in range(len(dataset))]
    return {
        s['image_id']: s['responses'].numpy().tobytes()
        for s in samples
        if s['geometry'].subject == subject and s['split'] == split
    }


@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize('subject', ['subj01', 'subj02'])
def test_shuffled_control_breaks_every_pair_within_split_and_subject(store, subject, split):
    plain, shuffled, again, other = (
        responses_by_image(make_dataset(store, split='all', shuffle_pairs=seed), subject, split)
        for seed in (None, 0, 0, 1)
    )
    assert plain.keys() == shuffled.keys() and sorted(plain.values()) == sorted(shuffled.values())
    assert all(plain[k] != shuffled[k] for k in plain)
    assert shuffled == again and shuffled != other


def test_subjects_who_saw_the_same_are_shuffled_differently(twins):
    """Otherwise every subject would learn the same wrong image for a response."""
    plain, shuffled = (make_dataset(twins, split='all', shuffle_pairs=seed) for seed in (None, 0))
    half = len(plain) // 2
    ids = [[data.get_data_info(k)['image_id'] for k in range(len(data))] for data in (plain, shuffled)]
    assert ids[0][:half] == ids[0][half:]
    assert np.mean(np.equal(ids[1][:half], ids[1][half:])) < 0.1


@pytest.fixture(scope='module')
def crops(store, tmp_path_factory):
    """Make stores in which the 73k ids 0 to 5, 6 to 11 and so on of a split are crops of one photograph."""
    folder = tmp_path_factory.mktemp('crops')
    shutil.copy(store / 'images_32.h5', folder)
    for subject in ('subj01', 'subj02'):
        path = shutil.copy(store / f'{subject}.h5', folder)
        own = ROIStore(path)
        with h5py.File(path, 'a') as file:
            file['photo_id'] = own.image_id // 6 * 6 + (own.split == 'test') * 100_000
    return folder


def test_samples_have_the_id_of_their_photograph(store, crops):
    for folder, first in ((store, lambda image: image), (crops, lambda image: image // 6 * 6)):
        data = make_dataset(folder, split='train')
        batch = collate_subject_batch([data[k] for k in data.subject_indices()['subj01'][:40]])
        assert batch['photo_id'].tolist() == [first(image) for image in batch['image_id'].tolist()]
        assert batch['photo_id'].dtype == torch.int64


@pytest.mark.parametrize('split', ['train', 'test'])
def test_shuffled_control_gives_no_image_a_response_to_its_photograph(crops, split):
    plain, shuffled = (
        responses_by_image(make_dataset(crops, split='all', shuffle_pairs=seed), 'subj01', split) for seed in (None, 0)
    )
    shown = {response: image for image, response in plain.items()}
    assert sorted(shown[response] for response in shuffled.values()) == sorted(plain)
    assert all(shown[response] // 6 != image // 6 for image, response in shuffled.items())


def steps(dataset, images, world_size=1, epoch=0, seed=0, **kwargs):
    """List the samples of each training step over all ranks."""
    ranks = []
    for rank in range(world_size):
        sampler = Ranked(dataset, rank, world_size, seed=seed)
        sampler.set_epoch(epoch)
        batches = SubjectBatchSampler(sampler, images // world_size, **kwargs)
        ranks.append(list(batches))
        assert len(ranks[-1]) == len(batches)
    return [[i for batch in batches for i in batch] for batches in zip(*ranks)]


def subjects_of(dataset):
    return {int(i): subject for subject, own in dataset.subject_indices().items() for i in own}


@pytest.mark.parametrize('subjects_per_step, sizes', [(1, {60}), (2, {30, 60}), (3, {20, 40, 60})])
def test_a_step_is_made_of_groups_of_fixed_size_however_many_processes(store, subjects_per_step, sizes):
    dataset = make_dataset(store)
    found = steps(dataset, 60, subjects_per_step=subjects_per_step)
    for world_size in (2, 3):
        assert steps(dataset, 60, world_size, subjects_per_step=subjects_per_step) == found
    subject_of, both = subjects_of(dataset), []
    for step in found:
        subjects = np.asarray([subject_of[i] for i in step])
        lengths = np.diff(np.flatnonzero(np.r_[True, subjects[1:] != subjects[:-1], True]))
        assert len(step) == 60 and set(lengths) <= sizes and len(lengths) == len(set(subjects))
        both.append(len(lengths) == 2)
    assert np.mean(both) > 0.7 or subjects_per_step == 1, 'until the smaller subject is used up'
    seen = [i for step in found for i in step]
    assert set(seen) == set(range(len(dataset))) and len(seen) - len(dataset) < 60 * 2


def test_the_last_groups_are_filled_with_samples_of_the_same_subject(store):
    dataset = make_dataset(store, indices=50)  # of the first subject
    (first, second) = steps(dataset, 32, subjects_per_step=2)
    assert sorted(first + second)[:50] != sorted(first + second) and set(first + second) == set(range(50))
    assert second[-14:] == first[:14]


def test_more_groups_than_images_are_refused(store):
    with pytest.raises(ValueError, match=r'subjects_per_step is 9; .* the 8 images of a step \(2 process'):
        SubjectBatchSampler(Ranked(make_dataset(store), 0, 2), 4, subjects_per_step=9)


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_batches_of_testing_are_subject_pure_and_cover_everything(store, world_size):
    dataset = make_dataset(store)
    subject_of = subjects_of(dataset)
    samplers = [Ranked(dataset, rank, world_size, shuffle=False) for rank in range(world_size)]
    ranks = [list(SubjectBatchSampler(sampler, 64)) for sampler in samplers]
    assert len({len(batches) for batches in ranks}) == 1  # the ranks take equally many steps
    batches = [batch for batches in zip(*ranks) for batch in batches]
    assert all(len({subject_of[i] for i in batch}) == 1 and 32 <= len(batch) <= 64 for batch in batches)
    seen = [i for batch in batches for i in batch]
    assert seen[: len(dataset)] == list(range(len(dataset))) and len(seen) - len(dataset) <= 64 * (world_size - 1)


def test_subjects_take_turns_and_epochs_and_seeds_draw_other_groups(store):
    dataset = make_dataset(store)
    subject_of = subjects_of(dataset)
    first, second = steps(dataset, 16), steps(dataset, 16, epoch=1)
    assert first == steps(dataset, 16) != steps(dataset, 16, seed=1)
    order = np.asarray([subject_of[step[0]] for step in first])
    for name in ('subj01', 'subj02'):
        half, whole = (order[: len(order) // 2] == name).sum(), (order == name).sum()
        assert abs(half - whole / 2) <= 1, f'{name} is half done after half of the epoch'
    assert not {frozenset(step) for step in first} & {frozenset(step) for step in second}
    assert all((np.diff(step) < 0).any() for step in first)


@pytest.mark.parametrize('context', ['fork', 'spawn'])
def test_workers_read_the_same_samples(store, context):
    dataset = make_dataset(store, split='test')
    sampler = SubjectBatchSampler(DefaultSampler(dataset, shuffle=False), 16)
    dataset[0]  # opens the memory maps before workers start
    loader = DataLoader(
        dataset, batch_sampler=sampler, num_workers=2, collate_fn=collate_subject_batch, multiprocessing_context=context
    )
    ids = torch.cat([batch['image_id'] for batch in loader])
    assert ids.tolist() == [dataset[i]['image_id'] for i in range(len(dataset))]


def test_collate(store):
    dataset = make_dataset(store)
    own = dataset.subject_indices()
    batch = collate_subject_batch([dataset[i] for i in own['subj02'][:5]])
    assert batch['inputs'].shape == (5, 3, 32, 32) and batch['inputs'].dtype == torch.uint8
    assert batch['responses'].shape == (5, sum(batch['geometry'].roi_sizes)) and batch['image_id'].dtype == torch.int64
    assert batch['geometry'] is dataset.geometries['subj02']
    mixed = [dataset[i] for i in (*own['subj02'][:3], *own['subj01'][:2])]
    batch = collate_subject_batch(mixed)
    assert batch['inputs'].shape == (5, 3, 32, 32) and batch['image_id'].tolist() == [s['image_id'] for s in mixed]
    assert [geometry.subject for geometry in batch['geometry']] == ['subj02', 'subj01']
    assert [len(responses) for responses in batch['responses']] == [3, 2]
    assert torch.equal(batch['responses'][1][0], mixed[3]['responses'])
    assert batch['noise_ceiling'][1] is mixed[3]['noise_ceiling'] and batch['ncsnr'][0] is mixed[0]['ncsnr']
    with pytest.raises(ValueError, match='subj01, subj02 in mixed order; set batch_sampler'):
        collate_subject_batch([mixed[0], mixed[3], mixed[1]])


def test_missing_images_are_named_before_training(store, tmp_path):
    own = ROIStore(store / 'subj02.h5')
    test, lacking = own.image_id[own.split == 'test'], own.image_id[own.split != 'test']
    with atomic_h5(tmp_path / 'images_8.h5') as file:
        file['images'], file['image_id'] = np.zeros((len(test), 8, 8, 3), np.uint8), test
    (tmp_path / 'subj02.h5').symlink_to(store / 'subj02.h5')
    options = dict(subjects='subj02', roi_names='streams', images='images_8.h5')  # single ones, as of --cfg-options
    assert len(make_dataset(tmp_path, split='test', **options)) == len(test)
    with pytest.raises(ValueError, match=f'images_8.h5 lacks {len(lacking)} .* subj02, e.g. .* {lacking[0]}. Prepare'):
        make_dataset(tmp_path, split='train', **options)


def test_stores_that_do_not_belong_together_are_refused(twins, tmp_path):
    for path in twins.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert len(make_dataset(tmp_path)) > 0
    (tmp_path / 'subj03.h5').symlink_to(twins / 'subj01.h5')
    with pytest.raises(ValueError, match='subj03.h5 is a store of subj01'):
        make_dataset(tmp_path, subjects=[1, 3])
    other = tmp_path / 'subj02.h5'
    other.unlink()
    shutil.copy(twins / 'subj02.h5', other)
    with h5py.File(other, 'a') as file:
        file.attrs['normalization'] = 'none'
    with pytest.raises(ValueError, match="normalization of .*subj01.h5 is 'train', and of .*subj02.h5 'none'"):
        make_dataset(tmp_path)


@pytest.mark.parametrize(
    'changes, error, named',
    [
        (dict(split='validation'), ValueError, 'validation'),
        (dict(subjects=[]), ValueError, 'subjects'),
        (dict(subjects=[3]), FileNotFoundError, 'subj03.h5'),
        (dict(roi_names=('V9',)), ValueError, 'V9'),
        (dict(images='images_7.h5'), FileNotFoundError, 'images_7.h5'),
        (dict(voxel_order='random'), ValueError, 'voxel_order'),
    ],
)
def test_wrong_arguments_are_named(store, changes, error, named):
    with pytest.raises(error, match=named):
        make_dataset(store, **changes)
