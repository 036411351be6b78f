# The paper's literal form, for comparison with configs/nfn/pretrain_nsd.py, which decides otherwise where this is slow
# or can be minimised without the stimulus: slices one after another through whole blocks, the last layer alone, one-way
# L_con, L_bfg as a sum over the ROIs, with the other ROIs of the sample as its only negatives and plain products, ROI
# features of the backbone's last map, no adapter, no L_enc, voxels in the order of the files.
#   tools/dist_train.sh configs/nfn/pretrain_nsd_paper.py 2
_base_ = './pretrain_nsd.py'
model = dict(
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=768),
    fmri_encoder=dict(merge='concat', multi_scale=False, adapter=None),
    contrastive=dict(symmetric=False),
    guidance=dict(negatives='roi', temperature=1.0, normalize=False, reduction='sum'),
    encoding=None,
)
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(voxel_order='stored'))
test_evaluator = dict(_delete_=True, type='mmnfn.RetrievalMetric')
