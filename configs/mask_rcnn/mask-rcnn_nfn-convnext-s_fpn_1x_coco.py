# Mask R-CNN with the brain-guided ConvNeXt-S, 1x schedule, COCO 2017.
# MMDetection has the recipe of ConvNeXt-T (3x) only: its decay .95 and drop path .4, with the 12 layer groups of
# ConvNeXt-S and the schedule and augmentation of the Swin-S config beside this one, so that the two backbones compare.
_base_ = [
    '../_base_/backbones/convnext-s.py',
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/adamw_1x.py',
    '../_base_/runtimes/mmdet.py',
]
checkpoint = 'work_dirs/pretrain_nsd_convnext-s/backbone_latest.pth'

model = dict(
    backbone=dict(
        _base_.backbone_convnext_s,
        _delete_=True,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

# lr 1e-4 for batch size 16 = 8 GPUs x 2 images; another batch size b: lr = 1e-4 * b / 16, or --auto-scale-lr.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(decay_rate=0.95, decay_type='layer_wise', num_layers=12),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
