# mask-rcnn_micro_fpn_demo.py with the backbone as it was loaded.
_base_ = 'mask-rcnn_micro_fpn_demo.py'
model = dict(backbone=dict(frozen_stages=3))
