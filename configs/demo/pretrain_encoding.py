# configs/nfn/pretrain_nsd_encoding.py made small for two CPU cores.
_base_ = 'pretrain.py'
model = dict(neck=None, fmri_encoder=None, contrastive=None, guidance=None)
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(_delete_=True, type='mmnfn.ResponseMetric')
