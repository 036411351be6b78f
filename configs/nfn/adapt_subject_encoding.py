# adapt_subject.py for pretrain_nsd_encoding.py: the new person's receptive fields. tools/test.py scores the predicted
# responses to the subject's test images.
_base_ = 'adapt_subject.py'
load_from = 'work_dirs/pretrain_nsd_encoding/epoch_100.pth'
model = dict(neck=None, fmri_encoder=None, contrastive=None, guidance=None)
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(_delete_=True, type='mmnfn.ResponseMetric')
