# configs/nfn/pretrain_nsd_paper.py made small, like pretrain.py.
_base_ = 'pretrain.py'
model = dict(
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=256),
    fmri_encoder=dict(merge='concat', multi_scale=False, adapter=None),
    contrastive=dict(symmetric=False),
    guidance=dict(negatives='roi', temperature=1.0, normalize=False, reduction='sum'),
    encoding=None,
)
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(voxel_order='stored'))
test_evaluator = dict(_delete_=True, type='mmnfn.RetrievalMetric')
