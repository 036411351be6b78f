# Mask R-CNN, frozen Swin-S with random weights, 1x schedule, COCO 2017.
_base_ = 'mask-rcnn_random-swin-s_fpn_1x_coco.py'
model = dict(backbone=dict(frozen_stages=3))
