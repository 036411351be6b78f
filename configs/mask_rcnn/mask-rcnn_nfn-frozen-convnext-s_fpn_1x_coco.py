# Mask R-CNN, frozen ConvNeXt-S with the brain-guided weights, 1x schedule, COCO 2017. frozen_stages leaves the norms of
# the outputs out.
_base_ = 'mask-rcnn_nfn-convnext-s_fpn_1x_coco.py'
model = dict(backbone=dict(frozen_stages=4, norm_cfg=dict(type='LN2d', eps=1e-6, requires_grad=False)))
