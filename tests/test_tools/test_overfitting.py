"""Training is right: from random weights, Mask R-CNN and UPerNet learn a few real images by heart.

Minutes on two cores; run with -m "real_data and slow".
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmnfn.engine.launch import child_environment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.real_data, pytest.mark.slow]
MASK_RCNN = """
_base_ = {base!r}
side, iterations = 160, 500
scale = dict(type='Resize', scale=(side, side), keep_ratio=True)
model = dict(
    backbone=dict(init_cfg=None),
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=28),
        mask_roi_extractor=dict(finest_scale=28),
        bbox_head=dict(num_classes=80),
        mask_head=dict(num_classes=80),
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    scale,
    dict(type='PackDetInputs'),
]
test_pipeline = [_base_.test_pipeline[0], scale, *_base_.test_pipeline[2:]]
dataset = dict(
    type='CocoDataset', _delete_=True, data_root={root!r}, ann_file='train.json', data_prefix=dict(img='images/')
)
train_dataloader = dict(batch_size=8, dataset=dict(dataset, pipeline=train_pipeline))
test_dataloader = dict(batch_size=8, dataset=dict(dataset, test_mode=True, pipeline=test_pipeline))
test_evaluator = dict(ann_file={root!r} + '/train.json')
train_cfg = dict(max_iters=iterations)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3, weight_decay=0.0), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0)))
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=50, end=iterations),
]
default_hooks = dict(checkpoint=dict(interval=iterations))
"""
UPERNET = """
_base_ = {base!r}
side, iterations = 192, 320
scale = dict(type='Resize', scale=(side, side), keep_ratio=False)
# A streetlight is a thousandth of a building, and mIoU counts them alike: so does Lovász' loss.
loss = [dict(type='CrossEntropyLoss'), dict(type='LovaszLoss', reduction='none')]
head = dict(num_classes=150, dropout_ratio=0.0, loss_decode=loss)
model = dict(
    data_preprocessor=dict(size=(side, side)), backbone=dict(init_cfg=None), decode_head=head, auxiliary_head=head
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmnfn.LoadLabelMap', num_classes=150),
    scale,
    dict(type='PackSegInputs'),
]
test_pipeline = [_base_.test_pipeline[0], scale, train_pipeline[1], _base_.test_pipeline[3]]
dataset = dict(
    _delete_=True, type='ADE20KDataset', data_root={root!r}, data_prefix=dict(img_path='', seg_map_path='')
)
train_dataloader = dict(batch_size=3, dataset=dict(dataset, pipeline=train_pipeline))
test_dataloader = dict(batch_size=1, dataset=dict(dataset, pipeline=test_pipeline))
train_cfg = dict(max_iters=iterations)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3, weight_decay=0.0), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0)))
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='PolyLR', eta_min=1e-5, power=1.0, begin=20, end=iterations, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=iterations))
"""


def train_and_test(folder, config):
    """Metrics of tools/test.py after tools/train.py."""
    (folder / 'config.py').write_text(config)

    def run(script, *arguments):
        command = [sys.executable, ROOT / 'tools' / script, folder / 'config.py', *arguments, '--work-dir', folder]
        subprocess.run([*map(str, command)], check=True, env=child_environment())

    run('train.py')
    (checkpoint,) = folder.glob('iter_*.pth')
    run('test.py', checkpoint, '--out', folder / 'metrics.json')
    return json.loads((folder / 'metrics.json').read_text())


def lay_out_eight_images(coco128, out):
    """Eight photographs with one to five things, each a fiftieth of the picture or more: what 160 pixels show."""
    content = json.loads((coco128 / 'annotations/instances_train2017.json').read_text())
    things = {image['id']: [] for image in content['images']}
    for annotation in content['annotations']:
        things[annotation['image_id']].append(annotation)
    images = [
        image
        for image in sorted(content['images'], key=lambda image: image['id'])
        if 1 <= len(things[image['id']]) <= 5
        and not any(a['iscrowd'] for a in things[image['id']])
        and min(a['area'] for a in things[image['id']]) > image['width'] * image['height'] / 50
    ][:8]
    assert len(images) == 8
    (out / 'images').mkdir(parents=True)
    for image in images:
        shutil.copy(coco128 / 'train2017' / image['file_name'], out / 'images')
    content.update(images=images, annotations=[a for image in images for a in things[image['id']]])
    (out / 'train.json').write_text(json.dumps(content))


def test_mask_rcnn_learns_eight_photographs(real_data, tmp_path):
    pytest.importorskip('mmdet')
    lay_out_eight_images(real_data / 'coco128', tmp_path / 'data')
    base = str(ROOT / 'configs/demo/mask-rcnn_micro_fpn_demo.py')
    metrics = train_and_test(tmp_path, MASK_RCNN.format(base=base, root=str(tmp_path / 'data')))
    print({name: round(metrics[f'coco/{name}_mAP_50'], 3) for name in ('bbox', 'segm')})
    assert metrics['coco/bbox_mAP_50'] >= 0.7 and metrics['coco/segm_mAP_50'] >= 0.6


def test_upernet_learns_three_photographs(real_data, tmp_path):
    pytest.importorskip('mmseg')
    base = str(ROOT / 'configs/demo/upernet_micro_demo.py')
    metrics = train_and_test(tmp_path, UPERNET.format(base=base, root=str(real_data / 'ade20k_sample')))
    print({name: metrics[name] for name in ('mIoU', 'mAcc', 'aAcc')})
    assert metrics['mIoU'] >= 80, 'in percent, of the classes that are there'
