# Mask R-CNN, ConvNeXt-S with random weights, 3x schedule, COCO 2017.
_base_ = [
    '../_base_/downstream/mask-rcnn_convnext-s.py',
    '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/adamw_3x.py',
]
