"""ROIs at the level of areas, from the store to a training step, and the configs that use them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from small_configs import make_small_pretraining

from mmnfn.datasets import NSDDataset, collate_subject_batch
from mmnfn.nsd import ROI_CLASSES, ROIStore
from mmnfn.registry import DATASETS, MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
AREAS = ('V1', 'V2', 'V3', 'hV4', 'FFA', 'EBA', 'PPA', 'OPA', 'RSC', 'VWFA')


def test_areas_and_hemispheres_are_rois_of_a_dataset(store):
    names = ('V1', 'lh.FFA', 'floc-places/PPA', 'streams')
    dataset = NSDDataset(store, [1], 'images_32.h5', roi_names=names)
    own, geometry = ROIStore(store / 'subj01.h5'), dataset.geometries['subj01']
    parts = [
        np.sort(np.r_[own.roi('V1v'), own.roi('V1d')]),
        np.intersect1d(own.roi('FFA'), np.flatnonzero(own.hemisphere == 'lh')),
        own.roi('PPA'),
        own.roi('streams'),
    ]
    assert geometry.roi_names == names and geometry.roi_sizes == tuple(len(part) for part in parts)
    assert geometry.voxels.tolist() == np.concatenate(parts).tolist()
    row = int(np.flatnonzero(own.image_id == dataset[5]['image_id'])[0])
    assert (dataset[5]['responses'] == own.responses[row][np.concatenate(parts)]).all()
    with pytest.raises(ValueError, match=r"'V7' is not in .*subj01.h5, which has floc-bodies \(EBA, "):
        NSDDataset(store, [1], 'images_32.h5', roi_names=['V1', 'V7'])


@pytest.mark.parametrize('name', ['nfn/pretrain_nsd', 'demo/pretrain'])
def test_the_config_of_areas_differs_in_its_rois_alone(name):
    main, areas = (Config.fromfile(CONFIGS / f'{stem}.py').to_dict() for stem in (name, f'{name}_areas'))
    assert tuple(main['model']['fmri_encoder'].pop('roi_names')) == ROI_CLASSES
    assert tuple(areas['model']['fmri_encoder'].pop('roi_names')) == AREAS == tuple(areas.pop('roi_names'))
    for kind in ('train', 'val', 'test'):
        assert tuple(areas[f'{kind}_dataloader']['dataset'].pop('roi_names')) == AREAS
    assert areas == main


def test_areas_train(store):
    cfg = Config.fromfile(CONFIGS / 'nfn/pretrain_nsd_areas.py')
    make_small_pretraining(cfg, 'swin-s', [1])
    cfg.train_dataloader.dataset.data_root = str(store)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model, data = MODELS.build(cfg.model), DATASETS.build(cfg.train_dataloader.dataset)
        batch = model.data_preprocessor(collate_subject_batch([data[k] for k in range(3)]), True)
    losses = model.train()(**batch, mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())
    present = [name for name, size in zip(AREAS, data.geometries['subj01'].roi_sizes) if size]
    assert {f'bfg_{name}' for name in present} <= set(losses)


def test_encoding_is_reported_for_classes_and_areas(store):
    for config in ('encoding/swin-s_nsd.py', 'demo/encoding.py'):
        dataset = Config.fromfile(CONFIGS / config).test_dataloader.dataset
        assert tuple(dataset.roi_names) == (*ROI_CLASSES, *AREAS)
