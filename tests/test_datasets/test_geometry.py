"""Order and weights of the voxels."""

import h5py
import numpy as np
import pytest

from mmnfn.datasets import NSDDataset, PackNSDInputs, WeightByReliability, subject_geometry
from mmnfn.datasets.geometry import hilbert_index, image_fields, order_voxels
from mmnfn.nsd import ROIStore


@pytest.mark.parametrize('bits', [1, 2, 3, 4])
def test_the_curve_visits_every_cell_and_goes_to_a_neighbour(bits):
    cells = np.stack(np.meshgrid(*[np.arange(2**bits)] * 3, indexing='ij'), -1).reshape(-1, 3)
    index = hilbert_index(cells, bits)
    assert sorted(index) == list(range(len(cells)))
    steps = np.abs(np.diff(cells[np.argsort(index)], axis=0)).sum(1)
    assert (steps == 1).all()


def test_consecutive_voxels_are_closer_than_in_raster_order(store):
    roi_store = ROIStore(store / 'subj01.h5')
    coordinates = roi_store.coordinates[roi_store.roi('streams')]

    def spread(order):
        places = coordinates[order_voxels(coordinates, order)]
        windows = np.lib.stride_tricks.sliding_window_view(places, 32, axis=0)  # the voxels of a token
        return np.mean(windows.std(axis=2))

    assert sorted(order_voxels(coordinates, 'hilbert')) == list(range(len(coordinates)))
    assert spread('hilbert') < 0.6 * spread('stored')


def test_responses_and_positions_are_reordered_alike(store):
    options = dict(roi_names=('floc-faces', 'streams'), split='all')
    plain = NSDDataset(store, [1], 'images_32.h5', **options)
    curve = NSDDataset(store, [1], 'images_32.h5', voxel_order='hilbert', **options)
    a, b = plain.geometries['subj01'], curve.geometries['subj01']
    assert a.roi_sizes == b.roi_sizes and not np.array_equal(a.coordinates, b.coordinates)
    row = {(k, *xyz): i for i, (k, xyz) in enumerate(labelled(a))}
    order = [row[(k, *xyz)] for k, xyz in labelled(b)]
    assert sorted(order) == list(range(len(order)))
    for index in (0, 9):
        assert np.array_equal(curve.load_responses(index), plain.load_responses(index)[order])
        assert np.array_equal(curve[index]['noise_ceiling'], plain[index]['noise_ceiling'][order])


def labelled(geometry):
    """List ROI number and position of each voxel."""
    rois = np.repeat(np.arange(len(geometry.roi_sizes)), geometry.roi_sizes)
    return zip(rois.tolist(), map(tuple, geometry.coordinates.tolist()))


def test_reliability_weights(store):
    options = dict(roi_names=('floc-faces', 'streams'), split='test')
    plain = NSDDataset(store, [1], 'images_32.h5', **options)
    dataset = NSDDataset(store, [1], 'images_32.h5', pipeline=[WeightByReliability(), PackNSDInputs()], **options)
    sample, weighted = plain[3], dataset[3]['responses'].numpy()
    ceiling = sample['noise_ceiling'].numpy().astype(float)
    root_mean_square = np.sqrt(np.mean([c for c in ceiling]))
    for value, response, c in zip(weighted, sample['responses'], ceiling):
        assert value == pytest.approx(response * np.sqrt(c) / root_mean_square, rel=1e-4, abs=1e-5)
    unknown = dict(sample, noise_ceiling=sample['noise_ceiling'] * float('nan'))
    with pytest.raises(ValueError, match='subj01'):
        WeightByReliability().transform(unknown)
    one = dict(sample, noise_ceiling=sample['noise_ceiling'].clone())
    one['noise_ceiling'][5] = float('nan')
    assert WeightByReliability(power=0).transform(one)['responses'][5] == 0


def test_measured_fields_are_those_of_the_simulated_voxels(store, world):
    """From polar angle and eccentricity in degrees back to the image, whose y goes downwards."""
    own = ROIStore(store / 'subj01.h5')
    geometry, index = subject_geometry(own, ('prf-visualrois', 'streams'), 'hilbert')
    with h5py.File(world / 'truth.h5') as truth:
        truth = truth['subj01']
        fields = dict(zip(map(tuple, truth['voxel'][()].tolist()), truth['field'][()]))
    x, y, size = np.stack([fields[tuple(voxel)] for voxel in own.location['voxel'][index].tolist()]).T
    np.testing.assert_allclose(geometry.prf.numpy(), np.stack([x, -y, size / 2], 1), atol=1e-5)


def test_voxels_without_a_measured_field_see_the_middle():
    fields = image_fields(np.array([[90, 2.1, 0.84], [np.nan, 1, 1]]))
    np.testing.assert_allclose(fields, [[0, -0.5, 0.1], [0, 0, 0.5]], atol=1e-7)
