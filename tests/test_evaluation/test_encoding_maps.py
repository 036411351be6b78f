"""Maps of voxels lie where the voxels do."""

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from mmnfn.datasets import NSDDataset, subject_geometry
from mmnfn.evaluation import EncodingMetric, fit_encoding_model, write_voxel_map
from mmnfn.nsd import NSDLayout, ROIStore


def test_maps_lie_where_the_voxels_do(world, store, tmp_path):
    """A voxel's value stands at its place in the ROI files' volume."""
    geometry, index = subject_geometry(ROIStore(store / 'subj01.h5'), ('streams', 'floc-faces'), 'hilbert')
    values = np.arange(len(index), dtype=np.float32)
    path = write_voxel_map(ROIStore(store / 'subj01.h5'), index, values, tmp_path / 'a/r.nii.gz')
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


@pytest.mark.parametrize('seed', [None, 0])
def test_metric_writes_maps(store, tmp_path, seed):
    """Of the voxels' true places, also where a control says that they are elsewhere."""
    rois = ('floc-faces', 'streams')
    dataset = NSDDataset(store, [1], 'images_32.h5', split='all', roi_names=rois, permute_positions=seed)
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
