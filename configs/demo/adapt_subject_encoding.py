# configs/nfn/adapt_subject_encoding.py made small for a CPU.
_base_ = 'adapt_subject.py'
load_from = 'work_dirs/pretrain_encoding/epoch_6.pth'
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
