# linear_micro_demo.py with a micro ConvNeXt.
_base_ = ['linear_micro_demo.py', '../_base_/backbones/convnext-micro.py']
checkpoint = 'work_dirs/pretrain_convnext/backbone_latest.pth'
model = dict(
    backbone=dict(
        _base_.backbone_convnext,
        _delete_=True,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
        # frozen_stages leaves the norms of the outputs out
        frozen_stages=4,
        norm_cfg=dict(type='LN2d', eps=1e-6, requires_grad=False),
    )
)
