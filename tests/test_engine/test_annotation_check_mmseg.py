"""Folders, classes and heads of MMSegmentation are compared before a run."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

pytest.importorskip('mmseg')
from mmnfn.engine.annotation_check import check_annotations  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LOADERS = ('train_dataloader', 'test_dataloader')


def write_pair(root, split, name, labels):
    for kind in ('images', 'annotations'):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*labels.shape[:2], 3), np.uint8)).save(root / f'images/{split}/{name}.jpg')
    Image.fromarray(labels).save(root / f'annotations/{split}/{name}.png')


@pytest.fixture()
def root(tmp_path):
    """ADE20K's layout: three images a split, with the demo's 17 classes and unlabelled pixels."""
    for split in ('training', 'validation'):
        for number in range(3):
            write_pair(tmp_path, split, f'{number}', np.arange(18, dtype=np.uint8).reshape(2, 9))
    return tmp_path


@pytest.fixture()
def cfg(root):
    cfg = Config.fromfile(CONFIGS / 'demo/upernet_micro_demo.py')
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(root)
    return cfg


def refused(cfg, named, error=ValueError, loaders=LOADERS):
    with pytest.raises(error, match=named) as found:
        check_annotations(cfg, loaders)
    assert '\n' not in str(found.value)


def test_what_fits_passes(cfg):
    check_annotations(cfg, LOADERS)
    cfg.train_dataloader.dataset.data_root = 'nowhere'
    check_annotations(cfg, ('test_dataloader',))


def test_class_names_that_are_mistyped_are_named(cfg):
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.update(type='ADE20KDataset', metainfo=dict(classes=['wall', 'bilding']))
    cfg.model.decode_head.num_classes = cfg.model.auxiliary_head.num_classes = 2
    refused(cfg, "'bilding'")
    cfg.train_dataloader.dataset.metainfo.classes = 'wall'
    refused(cfg, "metainfo.classes is 'wall'. Give a list")


def test_another_order_of_classes_is_named(cfg):
    cfg.test_dataloader.dataset.metainfo = dict(classes=tuple(reversed(cfg.classes)))
    refused(
        cfg,
        "Label 0 is 'face' by train_dataloader.dataset.* and 'floor' by test_dataloader.dataset",
        loaders=('test_dataloader',),
    )


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head'])
def test_heads_have_as_many_classes_as_the_data(cfg, head):
    cfg.model[head].num_classes = 18
    refused(cfg, rf'^model.{head}.num_classes is 18, and train_dataloader.dataset has 17 classes')


def test_label_maps_are_loaded_with_as_many_classes_as_they_have(cfg):
    (step,) = (step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'mmnfn.LoadLabelMap')
    step.num_classes = 150
    refused(cfg, r'^train_dataloader.dataset.pipeline.\d.num_classes is 150, and the label maps .* have 17 classes')


def test_folders_without_a_sample_are_named(cfg, root):
    cfg.train_dataloader.dataset.img_suffix = '.png'
    refused(cfg, r"train_dataloader.dataset: no image .* ends in '.png' in \S*/images/training. Set img_suffix")
    cfg.train_dataloader.dataset.update(img_suffix='.jpg', seg_map_suffix='.tif')
    refused(cfg, r'3 of 6 files are missing, \S*/annotations/training/0.tif first.*seg_map_suffix', FileNotFoundError)
    cfg.train_dataloader.dataset.data_prefix.img_path = 'images/train'
    refused(cfg, 'images/train', FileNotFoundError)
    (root / 'train.txt').write_text('')
    cfg.train_dataloader.dataset.update(ann_file='train.txt', data_prefix=dict(img_path='images/training'))
    refused(cfg, r"train_dataloader.dataset: no image is listed in '\S*train.txt'")


@pytest.mark.parametrize(
    'value, reduced, named',
    [
        (18, True, 'annotations/validation/0.png: 1 pixels have the value 18'),
        (17, False, '0.png: 1 pixels have the value 17'),
        (255, True, '0.png: .* value 255, .* reduced already'),
        (None, False, '^test_dataloader.dataset: the label maps hold 0 and 255 alone, .*/2.png among them'),
    ],
)
def test_label_maps_of_each_folder_are_looked_at(cfg, root, value, reduced, named):
    cfg.test_dataloader.dataset.reduce_zero_label = reduced
    for number in range(3):
        labels = np.asarray([[0, 1, 2, value or 0]] if value else [[0, 255]], np.uint8)
        write_pair(root, 'validation', f'{number}', labels)
    refused(cfg, named, loaders=LOADERS[1:])
