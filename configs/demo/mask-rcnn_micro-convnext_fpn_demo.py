# mask-rcnn_micro_fpn_demo.py with a micro ConvNeXt.
_base_ = ['mask-rcnn_micro_fpn_demo.py', '../_base_/backbones/convnext-micro.py']
checkpoint = 'work_dirs/pretrain_convnext/backbone_latest.pth'
strides = [4, 8, 16, 32]
model = dict(
    backbone=dict(
        _base_.backbone_convnext,
        _delete_=True,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
    ),
    rpn_head=dict(anchor_generator=dict(strides=strides)),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=strides), mask_roi_extractor=dict(featmap_strides=strides)),
)
