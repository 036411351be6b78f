"""Controls remove what their name says, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmnfn.datasets import NSDDataset, subject_geometry
from mmnfn.nsd import ROI_CLASSES, ROIStore

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/nfn'


def voxels(store, subject=1, **control):
    """Return geometry, voxel indices and ROI numbers along the voxel axis."""
    geometry, index = subject_geometry(ROIStore(store / f'subj0{subject}.h5'), ROI_CLASSES, 'hilbert', **control)
    return geometry, index, np.repeat(np.arange(len(ROI_CLASSES)), geometry.roi_sizes)


def test_permuted_rois_keep_voxels_and_their_positions(store):
    plain, index, roi = voxels(store)
    geometry, dealt, dealt_roi = voxels(store, permute_rois=0)
    assert geometry.roi_sizes == plain.roi_sizes
    rois, dealt_rois = (
        [set(x[own == k]) for k in range(len(ROI_CLASSES))] for x, own in ((index, roi), (dealt, dealt_roi))
    )
    assert set(dealt) == set(index) and [len(x) for x in dealt_rois] == list(plain.roi_sizes), 'no voxel twice in a ROI'
    overlaps, dealt_overlaps = ([len(a & b) for a in x for b in x] for x in (rois, dealt_rois))
    assert overlaps == dealt_overlaps and sum(overlaps) > sum(plain.roi_sizes), 'and the same overlaps'
    stored = ROIStore(store / 'subj01.h5').coordinates
    assert (geometry.coordinates.numpy() == stored[dealt]).all()
    sizes, in_order = subject_geometry(ROIStore(store / 'subj01.h5'), ROI_CLASSES, 'stored', permute_rois=0)
    for part in np.split(in_order, np.cumsum(sizes.roi_sizes)[:-1]):
        assert (np.diff(part) > 0).all(), 'in the order of the store'
    # No more voxels than by chance keep their ROI.
    true = {name: set(ROIStore(store / 'subj01.h5').roi(name)) for name in ROI_CLASSES}
    kept = np.mean([voxel in true[ROI_CLASSES[k]] for voxel, k in zip(dealt, dealt_roi)])
    chance = np.mean([len(true[ROI_CLASSES[k]]) for k in dealt_roi]) / len(set(index))
    assert kept < chance + 0.1 < 0.9


def test_permuted_positions_keep_rois_and_their_sets_of_positions(store):
    plain, index, roi = voxels(store)
    geometry, moved, _ = voxels(store, permute_positions=0)
    assert geometry.roi_sizes == plain.roi_sizes
    stored = ROIStore(store / 'subj01.h5').coordinates
    for k in range(len(ROI_CLASSES)):
        own = roi == k
        assert sorted(moved[own]) == sorted(index[own])
        assert sorted(map(tuple, geometry.coordinates[own].tolist())) == sorted(map(tuple, stored[index[own]].tolist()))
        # Neighbours on the voxel axis are neighbours by the permuted positions, and not by the true ones.
        if own.sum() > 50:
            given, true = (
                np.linalg.norm(np.diff(x[own], axis=0), axis=1).mean()
                for x in (geometry.coordinates.numpy(), stored[moved])
            )
            assert given < 0.6 * true
    assert np.mean((geometry.coordinates.numpy() == stored[moved]).all(1)) < 0.1


@pytest.mark.parametrize('control', ['permute_rois', 'permute_positions'])
def test_controls_follow_seed_and_subject_and_reach_the_responses(store, control):
    first, again, other = (voxels(store, **{control: seed})[1] for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    dataset = NSDDataset(store, [1, 2], 'images_32.h5', split='train', voxel_order='hilbert', **{control: 0})
    own = ROIStore(store / 'subj01.h5')
    sample = dataset[3]
    row = int(np.flatnonzero(own.image_id == sample['image_id'])[0])
    assert (sample['responses'] == own.responses[row][first]).all()
    assert (sample['noise_ceiling'].numpy() == own.noise_ceiling[first]).all()
    assert (sample['ncsnr'].numpy() == own.ncsnr[first]).all()


@pytest.mark.parametrize('control', ['permute_rois', 'permute_positions'])
def test_subjects_with_the_same_voxels_are_permuted_differently(twins, control):
    one, two = (voxels(twins, subject, **{control: 0}) for subject in (1, 2))
    plain, _, _ = voxels(twins, 1)
    assert (voxels(twins, 1)[1] == voxels(twins, 2)[1]).all() and one[0].roi_sizes == two[0].roi_sizes
    assert np.mean(one[1] == two[1]) < 0.5
    assert (one[0].coordinates != two[0].coordinates).any() or control == 'permute_positions'


@pytest.mark.parametrize(
    'name, change, kinds',
    [
        ('shuffled', dict(shuffle_pairs=0), ['train']),
        # A model that was trained on one arrangement of the voxels cannot be tested on another.
        ('permuted-rois', dict(permute_rois=0), ['train', 'val', 'test']),
        ('permuted-positions', dict(permute_positions=0), ['train', 'val', 'test']),
    ],
)
def test_configs_change_the_data_alone(name, change, kinds):
    main, control = (
        Config.fromfile(CONFIGS / f'{stem}.py').to_dict() for stem in ('pretrain_nsd', f'pretrain_nsd_{name}')
    )
    for kind in kinds:
        dataset = control[f'{kind}_dataloader']['dataset']
        assert {key: dataset.pop(key) for key in change} == change
    assert control == main
