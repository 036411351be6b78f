"""Maps of voxels lie where the voxels do."""

import copy

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from nsd_damage import Files, oblique
from nsd_tree import CLASSES, write_tree

from mmnfn.datasets import NSDDataset, NSDLayout, ROIStore
from mmnfn.datasets.preparation import prepare_subject
from mmnfn.evaluation import EncodingMetric, encoding, fit_encoding_model, write_voxel_map


def test_maps_lie_where_the_voxels_do(world, store, tmp_path):
    """A voxel's value stands at its place in the ROI files' volume."""
    geometry, index = ROIStore(store / 'subj01.h5').geometry(('streams', 'floc-faces'), 'hilbert')
    values = np.arange(len(index), dtype=np.float32)
    path = write_voxel_map(ROIStore(store / 'subj01.h5'), geometry.coordinates, values, tmp_path / 'a/r.nii.gz')
    image = nib.load(path)
    reference = nib.load(NSDLayout(world / 'nsd').roi_file('subj01', 'streams'))
    assert image.shape == reference.shape and np.allclose(image.affine, reference.affine)
    volume, labels = image.get_fdata(), np.asarray(reference.dataobj)
    with h5py.File(store / 'subj01.h5') as file:
        voxel = file['voxel'][()][index]
    count = geometry.roi_sizes[0]
    assert (volume[tuple(voxel[count:].T)] == values[count:]).all()
    in_faces = {tuple(v) for v in voxel[count:]}
    assert all(volume[tuple(v)] == value for v, value in zip(voxel[:count], values) if tuple(v) not in in_faces)
    assert (labels[tuple(voxel[:count].T)] > 0).all()
    assert np.isnan(volume).sum() == volume.size - len({tuple(v) for v in voxel})
    with pytest.raises(ValueError, match='do not lie in the volume'):
        write_voxel_map(ROIStore(store / 'subj01.h5'), geometry.coordinates + 1, values, tmp_path / 'b.nii.gz')
    assert not (tmp_path / 'b.nii.gz').exists()


def test_maps_of_an_oblique_volume(tmp_path):
    """The way back from millimetres inverts the affine, also where it is neither diagonal nor symmetric."""
    tree = Files(write_tree(tmp_path / 'nsd').root)
    oblique(tree)
    store = ROIStore(prepare_subject(tree, tmp_path, 'subj02', CLASSES, progress=False))
    values = np.arange(len(store.coordinates), dtype=np.float32)
    image = nib.load(write_voxel_map(store, store.coordinates, values, tmp_path / 'r.nii.gz'))
    assert (image.get_fdata()[tuple(store.location['voxel'].T)] == values).all()
    assert np.allclose(image.affine, nib.load(tree.roi_of('streams')).affine, atol=1e-4)


def test_coordinates_outside_the_volume_are_refused(store, tmp_path):
    """Moved by the whole volume, to either side: a negative index would write to the other end."""
    own = ROIStore(store / 'subj01.h5')
    extent = own.location['affine'][:3, :3] @ own.attributes['volume_shape']
    for sign in (1, -1):
        with pytest.raises(ValueError, match='coordinates do not lie in the volume of .*subj01.h5'):
            write_voxel_map(own, own.coordinates + sign * extent, own.ncsnr, tmp_path / 'r.nii.gz')
    assert not list(tmp_path.iterdir())


def test_metric_writes_maps(store, tmp_path, monkeypatch):
    dataset = NSDDataset(store, [1], 'images_32.h5', split='all', roi_names=('floc-faces', 'streams'))
    samples = [dataset[i] for i in range(0, len(dataset), 4)]
    metric = EncodingMetric(bootstraps=5, map_dir=str(tmp_path), data_root=str(store))
    features = np.random.default_rng(0).normal(size=(len(samples), 5)).astype(np.float32)
    responses = np.stack([s['responses'] for s in samples])
    metric.process(
        dict(
            geometry=samples[0]['geometry'],
            responses=torch.tensor(responses),
            split=[s['split'] for s in samples],
            noise_ceiling=samples[0]['noise_ceiling'],
            ncsnr=samples[0]['ncsnr'],
        ),
        [dict(features=torch.tensor(f), image_id=s['image_id']) for f, s in zip(features, samples)],
    )
    with monkeypatch.context() as patch:
        patch.setattr(encoding, 'is_main_process', lambda: False)
        copy.deepcopy(metric).evaluate(len(samples))
    assert not list(tmp_path.iterdir()), 'all processes have the figures, and one writes'
    figures = metric.evaluate(len(samples))
    volume = nib.load(tmp_path / 'subj01_pcc.nii.gz').get_fdata()
    assert (~np.isnan(volume)).sum() == figures['encoding/voxels'] - figures['encoding/voxels_constant']
    test = np.asarray([s['split'] == 'test' for s in samples])
    r = fit_encoding_model(features[~test], responses[~test], features[test], responses[test], bootstraps=2).r
    own, size = ROIStore(store / 'subj01.h5'), samples[0]['geometry'].roi_sizes[0]
    for part, name in ((slice(0, size), 'floc-faces'), (slice(size, None), 'streams')):
        found = volume[tuple(own.location['voxel'][own.roi(name)].T)]
        assert np.allclose(found, r[part], atol=1e-5, equal_nan=True) and np.nanstd(found) > 0.02
    with pytest.raises(ValueError, match='bootstraps is 1; an interval needs at least 2'):
        EncodingMetric(bootstraps=1)
    with pytest.raises(ValueError, match='map_dir is given without data_root'):
        EncodingMetric(map_dir=str(tmp_path))
