"""COCO files, classes, heads, images and metrics of a run mean the same by a label, or the run does not begin."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

pytest.importorskip('mmdet')
from mmnfn.engine.annotation_check import check_annotations

CLASSES = ['cat', 'dog']


@pytest.fixture()
def data(tmp_path):
    """Folder and content of a file of two images of 60 x 40 pixels with one cat and one dog each."""
    annotations = [
        dict(id=1 + i, image_id=i // 2, category_id=3 + i % 2, bbox=[9 * i, 0, 8, 8], area=64, iscrowd=0)
        for i in range(4)
    ]
    for annotation in annotations:
        x = annotation['bbox'][0]
        annotation['segmentation'] = [[x, 0, x + 8, 0, x + 8, 8, x, 8]]
    content = dict(
        images=[dict(id=i, width=60, height=40, file_name=f'{i}.jpg') for i in (0, 1)],
        categories=[dict(id=3, name='cat'), dict(id=4, name='dog')],
        annotations=annotations,
    )
    for i in (0, 1):
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / f'{i}.jpg')
    return tmp_path, content


def config(folder, content, classes=CLASSES, others=None):
    """Training and validation data, the latter with a file of its own if ``others`` is its content."""
    (folder / 'train.json').write_text(json.dumps(content))
    (folder / 'val.json').write_text(json.dumps(others or content))

    def loader(file, with_mask=True, **settings):
        pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_mask=with_mask)]
        dataset = dict(
            type='CocoDataset',
            data_root=str(folder),
            ann_file=file,
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
            pipeline=pipeline,
            **settings,
        )
        return dict(batch_size=1, dataset=dataset)

    train = loader('train.json', filter_cfg=dict(filter_empty_gt=True, min_size=32))
    train['dataset'] = dict(type='RepeatDataset', times=2, dataset=train['dataset'])
    head = dict(type='Shared2FCBBoxHead', num_classes=2)
    roi_head = dict(bbox_head=[dict(head), dict(head)], mask_head=dict(type='FCNMaskHead', num_classes=2))
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(rpn_head=dict(num_classes=1), roi_head=dict(roi_head, semantic_head=dict(num_classes=183))),
            train_dataloader=train,
            val_dataloader=loader('val.json', test_mode=True),
            val_evaluator=[dict(type='mmnfn.CocoNSDMetric', ann_file=str(folder / 'val.json'))],
        )
    )


def check(cfg):
    check_annotations(cfg, ('train_dataloader', 'val_dataloader'))


def refused(cfg, message):
    with pytest.raises(ValueError, match=message):
        check(cfg)


def test_what_agrees_is_accepted(data, monkeypatch):
    folder, content = data
    check(config(folder, content))
    cfg = config(folder, content, classes=['dog'])
    cfg.model.roi_head.bbox_head = dict(num_classes=1)
    cfg.model.roi_head.mask_head = dict(num_classes=1)
    check(cfg)
    monkeypatch.setenv('LOCAL_RANK', '1')
    monkeypatch.setattr('mmnfn.engine.annotation_check.read_instances', None)
    check(config(folder, content))


def test_labels_of_config_and_files_are_in_one_order(data):
    folder, content = data
    turned = dict(content, categories=content['categories'][::-1])
    refused(config(folder, content, CLASSES[::-1]), "Label 0 is 'dog' by train_.*classes and 'cat' by .*train.json")
    refused(config(folder, content, others=turned), "Label 0 is 'cat' by val_.*classes and 'dog' by .*val.json")
    cfg = config(folder, content, others=turned)
    cfg.val_dataloader.dataset.metainfo.classes = CLASSES[::-1]
    refused(cfg, "Label 0 is 'cat' by train_dataloader.* and 'dog' by val_dataloader")
    cfg = config(folder, content)
    (folder / 'other.json').write_text(json.dumps(turned))
    cfg.val_evaluator[0].ann_file = str(folder / 'other.json')
    refused(cfg, "Label 0 is 'cat' by the classes of val_dataloader and 'dog' by .*other.json")


def test_classes_that_are_in_no_file_are_named(data):
    folder, content = data
    refused(config(folder, content, ['cta', 'dog']), r"train.json has no category 'cta' \(1 of 2 .*It has 'cat', 'dog'")
    refused(config(folder, content, 'cat'), "metainfo.classes is 'cat'. Give a list")


@pytest.mark.parametrize('head', ['bbox_head.1', 'mask_head'])
def test_every_head_has_as_many_classes_as_the_data(data, head):
    cfg = config(*data)
    cfg.merge_from_dict({f'model.roi_head.{head}.num_classes': 3})
    refused(cfg, f'model.roi_head.{head}.num_classes is 3, and train_dataloader.dataset.dataset has 2 classes')


@pytest.mark.parametrize('change', [dict(area=0), dict(bbox=[0, 0, 0.5, 0.5]), dict(category_id=9)])
def test_data_without_a_usable_annotation_are_named(data, change):
    folder, content = data
    content['categories'].append(dict(id=9, name='cow'))
    for annotation in content['annotations']:
        annotation.update(change)
    refused(config(folder, content), "train.json has no annotation of 'cat', 'dog' with an area above 0")


def test_a_test_without_images_is_refused(data):
    folder, content = data
    refused(config(folder, content, others=dict(content, images=[], annotations=[])), 'val.json lists no image')


def test_masks_are_where_they_are_loaded(data):
    folder, content = data
    without = dict(content, annotations=[dict(a, segmentation=None) for a in content['annotations']])
    refused(config(folder, without), "train.json: 'segmentation' is missing in annotations, id 1.*with_mask=False")
    cfg = config(folder, content, others=without)
    cfg.val_dataloader.dataset.pipeline[1].with_mask = False
    check(cfg)


def test_sizes_of_the_file_are_those_of_the_images(data):
    folder, content = data
    content['images'][1].update(width=40, height=60)
    refused(config(folder, content), r'train.json says that image 1 \(1.jpg\) is 40 x 60 .*, and .* loaded as 60 x 40')
    (folder / '1.jpg').unlink()
    refused(config(folder, content), '1.jpg of .*train.json cannot be read as an image: .*No such file')


def test_exif_turns_an_image_as_the_loader_does(data):
    from mmcv.transforms import LoadImageFromFile

    folder, content = data
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(folder / '1.jpg').save(folder / '1.jpg', exif=exif)
    for kind, size in dict(color=(60, 40), color_ignore_orientation=(40, 60)).items():
        loaded = LoadImageFromFile(color_type=kind)(dict(img_path=str(folder / '1.jpg')))
        assert loaded['ori_shape'] == size
        content['images'][1].update(height=size[0], width=size[1])
        cfg = config(folder, content)
        for dataset in (cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset):
            dataset.pipeline[0].color_type = kind
        check(cfg)
    refused(config(folder, content), 'loaded as 40 x 60. Its EXIF data turn it: .*color_ignore_orientation')


def test_mmdetections_metric_is_not_given_what_it_takes_for_a_miss(data):
    folder, content = data
    others = json.loads(json.dumps(content))
    others['annotations'][0]['id'] = 0
    cfg = config(folder, content, others=others)
    check(cfg)
    cfg.val_evaluator[0].type = 'CocoMetric'
    refused(cfg, 'CocoMetric takes annotation 0 of .*val.json .* Use mmnfn.CocoNSDMetric')
