_base_ = 'pretrain.py'
model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=None, fmri_encoder=None, contrastive=None, guidance=None, fusion=None,
    encoding=dict(in_channels=(64, 128, 256)),
    loss_weight=dict(_delete_=True, enc=1.0),
)
val_dataloader = None
val_evaluator = None
val_cfg = None
