# configs/nfn/pretrain_nsd_encoding.py made small for two CPU cores.
_base_ = 'pretrain.py'
model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=None,
    fmri_encoder=None,
    contrastive=None,
    guidance=None,
    fusion=None,
    encoding=dict(in_channels=(64, 128, 256)),
)
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(_delete_=True, type='mmnfn.ResponseMetric')
