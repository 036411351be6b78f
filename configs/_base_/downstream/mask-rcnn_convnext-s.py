# Mask R-CNN with ConvNeXt-S on COCO, without data and schedule. MMDetection has the recipe of ConvNeXt-T only: its
# decay .95 and drop path .4, with the 12 layer groups of ConvNeXt-S. The leaf config sets model.backbone.init_cfg;
# without it the weights are random.
_base_ = ['../backbones/convnext-s.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../runtimes/mmdet.py']
model = dict(
    backbone=dict(
        _base_.backbone_convnext_s,
        _delete_=True,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
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
