# A linear probe of the frozen backbone's averaged last stage: which classes an image shows, from the boxes of the
# simulated world's COCO layout.
_base_ = ['../_base_/backbones/swin-micro.py', '../_base_/runtimes/mmpretrain.py']
custom_imports = dict(imports=['mmnfn', 'mmpretrain.models', 'mmdet.datasets'], allow_failed_imports=False)
max_epochs = 10
data_root = 'data/sim/coco/'
checkpoint = 'work_dirs/pretrain/backbone_latest.pth'
classes = ('face', 'body', 'word', 'animal', 'car', 'chair', 'cup', 'ball', 'tree', 'house')

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    backbone=dict(
        _base_.backbone_micro,
        out_indices=(0, 1, 2, 3),
        frozen_stages=3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='MultiLabelLinearClsHead',  # reads the last stage
        in_channels=256,
        num_classes=len(classes),
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True),
    ),
)

pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=False),
    dict(type='KeyMapper', mapping=dict(gt_label='gt_bboxes_labels'), auto_remap=False),
    dict(type='PackInputs'),
]
dataset = dict(type='mmdet.CocoDataset', metainfo=dict(classes=classes), data_root=data_root, pipeline=pipeline)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(dataset, ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/')),
)
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset, ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'), test_mode=True
    ),
)
test_evaluator = dict(type='AveragePrecision')
test_cfg = dict()

train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
# lr 5e-3 for batch size 16 = 1 process x 16 images.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=5e-3, weight_decay=0.01))
auto_scale_lr = dict(enable=False, base_batch_size=16)
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True, end=max_epochs, convert_to_iter_based=True)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
