# Mask R-CNN, ConvNeXt-S with random weights, 1x schedule, COCO 2017.
_base_ = [
    '../_base_/downstream/mask-rcnn_convnext-s.py',
    '../_base_/datasets/coco.py',
    '../_base_/schedules/adamw_1x.py',
]
