# The Mask R-CNN configs made small for two CPU cores: micro Swin, 64 pixels, the simulated world's COCO layout.
_base_ = [
    '../_base_/backbones/swin-micro.py',
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/runtimes/mmdet.py',
]
max_iters = 240
data_root = 'data/sim/coco/'
checkpoint = 'work_dirs/pretrain/backbone_latest.pth'

classes = ('face', 'body', 'word', 'animal', 'car', 'chair', 'cup', 'ball', 'tree', 'house')
channels = 64
strides = [4, 8, 16, 16]
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    backbone=dict(
        _base_.backbone_micro,
        _delete_=True,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels, num_outs=4, norm_cfg=norm_cfg),
    # Anchors of 8, 16, 32 and 64 pixels; the last stage of the backbone keeps the stride of the one before.
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[2], strides=strides, base_sizes=[4, 8, 16, 32]),
    ),
    # Masks of 14 x 14 from RoIs of 7 x 7, one sample per RoI bin: most things are 12 to 25 pixels wide.
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=channels, finest_scale=8, featmap_strides=strides, roi_layer=dict(sampling_ratio=1)
        ),
        bbox_head=dict(in_channels=channels, fc_out_channels=256, num_classes=len(classes)),
        mask_roi_extractor=dict(
            out_channels=channels,
            finest_scale=8,
            featmap_strides=strides,
            roi_layer=dict(output_size=7, sampling_ratio=1),
        ),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            num_classes=len(classes),
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=128, max_per_img=64),
        rcnn=dict(sampler=dict(num=32), mask_size=14),
    ),
    test_cfg=dict(rpn=dict(nms_pre=128, max_per_img=64), rcnn=dict(max_per_img=50)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        metainfo=dict(classes=classes),
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=16),
        pipeline=train_pipeline,
    ),
)
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=dict(classes=classes),
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='mmnfn.CocoNSDMetric', ann_file=data_root + 'annotations/instances_val2017.json')
test_cfg = dict(type='TestLoop')

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
# lr 2e-3 for batch size 8 = 1 process x 8 images, for the new layers; a tenth of it for the backbone, whatever its
# weights: so short a training would else forget what it starts from.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=10.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=10, end=max_iters),
]

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1, save_optimizer=False),
)
log_processor = dict(by_epoch=False, window_size=10)
randomness = dict(seed=0)
