# The UPerNet configs made small for two CPU cores: micro Swin, 64 pixels, the simulated world's ADE20K layout.
_base_ = ['../_base_/backbones/swin-micro.py', '../_base_/models/upernet.py', '../_base_/runtimes/mmseg.py']
max_iters = 300
data_root = 'data/sim/ADEChallengeData2016/'
checkpoint = 'work_dirs/pretrain/backbone_latest.pth'

# The annotations hold 0 = unlabelled and 1-17 = class.
classes = (
    'face',
    'body',
    'word',
    'animal',
    'car',
    'chair',
    'cup',
    'ball',
    'tree',
    'house',
    'sky',
    'grass',
    'water',
    'road',
    'sand',
    'wall',
    'floor',
)
channels = 64
norm_cfg = dict(type='BN', requires_grad=True)
# Things cover little of an image: their pixels count four times, or so short a training learns stuff only.
loss_decode = dict(_delete_=True, type='mmnfn.ClassWeightedLoss', class_weight=[4.0] * 10 + [1.0] * 7)

model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        _base_.backbone_micro,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=channels,
        num_classes=len(classes),
        norm_cfg=norm_cfg,
        loss_decode=loss_decode,
    ),
    auxiliary_head=dict(
        in_channels=128,
        channels=channels,
        num_classes=len(classes),
        norm_cfg=norm_cfg,
        loss_decode=dict(loss_decode, loss_weight=0.4),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmnfn.LoadLabelMap', num_classes=len(classes)),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='mmnfn.LoadLabelMap', num_classes=len(classes)),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=dict(classes=classes),
        reduce_zero_label=True,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = dict(
    batch_size=1,  # images may differ in size
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=dict(classes=classes),
        reduce_zero_label=True,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
# lr 1e-3 for batch size 8 = 1 process x 8 images, for the new layers; a tenth of it for the backbone, whatever its
# weights: so short a training would else forget what it starts from.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=10),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=10, end=max_iters, by_epoch=False),
]

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_iters, max_keep_ckpts=1, save_optimizer=False)
)
log_processor = dict(window_size=10)
randomness = dict(seed=0)
