# Mask R-CNN, Swin-S with random weights, 3x schedule, COCO 2017.
_base_ = [
    '../_base_/downstream/mask-rcnn_swin-s.py',
    '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/adamw_3x.py',
]
model = dict(backbone=dict(init_cfg=_base_.init_random))
