# Mask R-CNN, frozen Swin-S with weights from shuffled brains, 1x schedule, COCO 2017.
_base_ = 'mask-rcnn_nfn-shuffled-swin-s_fpn_1x_coco.py'
model = dict(backbone=dict(frozen_stages=3))
