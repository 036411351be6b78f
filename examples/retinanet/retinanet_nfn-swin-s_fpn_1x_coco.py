# A detector of somebody else's project: MMDetection's RetinaNet on a brain-guided Swin-S. Nothing but the backbone and
# its optimizer is changed; mmnfn has to be installed, and none of its folders are needed.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmnfn', 'mmpretrain.models'], allow_failed_imports=False)
custom_hooks = [dict(type='mmnfn.LoadAuditHook')]  # stops where the backbone did not load wholly
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.SwinTransformer',
        arch='small',
        out_indices=(1, 2, 3),
        pad_small_map=True,
        init_cfg=dict(type='Pretrained', checkpoint='backbone_latest.pth', prefix='backbone.'),
    ),
    neck=dict(in_channels=[192, 384, 768], start_level=0),
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05))
