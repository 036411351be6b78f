# configs/nfn/adapt_subject_encoding.py made small for a CPU.
_base_ = 'adapt_subject.py'
load_from = 'work_dirs/pretrain_encoding/epoch_6.pth'
model = dict(neck=None, fmri_encoder=None, contrastive=None, guidance=None)
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(_delete_=True, type='mmnfn.ResponseMetric')
