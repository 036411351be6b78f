# Mask R-CNN with Swin-S on COCO: the recipe of MMDetection's swin/mask-rcnn_swin-s, without data and schedule. The
# leaf config sets model.backbone.init_cfg; without it the weights are random.
_base_ = ['../backbones/swin-s.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../runtimes/mmdet.py']
model = dict(
    backbone=dict(
        _base_.backbone_swin_s,
        _delete_=True,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        pad_small_map=True,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

# lr 1e-4 for batch size 16 = 8 GPUs x 2 images; another batch size b: lr = 1e-4 * b / 16, or --auto-scale-lr.
# No layer-wise decay: MMDetection's constructor refuses Swin, and the official recipe has none.
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
