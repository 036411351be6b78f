# mask-rcnn_micro-convnext_fpn_demo.py with the backbone as it was loaded: frozen_stages leaves the norms of the outputs
# out.
_base_ = 'mask-rcnn_micro-convnext_fpn_demo.py'
model = dict(backbone=dict(frozen_stages=4, norm_cfg=dict(type='LN2d', eps=1e-6, requires_grad=False)))
