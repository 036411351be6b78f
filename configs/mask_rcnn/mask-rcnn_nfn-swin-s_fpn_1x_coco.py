# Mask R-CNN with the brain-guided Swin-S, 1x schedule, COCO 2017.
# The recipe of MMDetection's swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py. Other initialisations for comparison:
#   --cfg-options model.backbone.init_cfg.checkpoint=PATH     (an export of another pretraining)
#   --cfg-options model.backbone.init_cfg=None                (random weights)
_base_ = [
    '../_base_/backbones/swin-s.py',
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/adamw_1x.py',
    '../_base_/runtimes/mmdet.py',
]
checkpoint = 'work_dirs/pretrain_nsd/backbone_latest.pth'

model = dict(
    backbone=dict(
        _base_.backbone_swin_s,
        _delete_=True,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        pad_small_map=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

# lr 1e-4 for batch size 16 = 8 GPUs x 2 images; another batch size b: lr = 1e-4 * b / 16, or --auto-scale-lr.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            'absolute_pos_embed': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
            'norm': dict(decay_mult=0.0),
        }
    ),
)
