# configs/nfn/pretrain_nsd_brainformer.py made small, like pretrain.py.
_base_ = 'pretrain.py'
model = dict(
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=256),
    fmri_encoder=dict(interaction_layers=2, adapter=None),
    guidance=dict(negatives='roi'),
    encoding=None,
)
test_evaluator = dict(_delete_=True, type='mmnfn.RetrievalMetric')
