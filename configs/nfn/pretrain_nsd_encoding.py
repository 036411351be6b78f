# Anatomical encoding guidance (L_enc) in place of the towers: stages 2 to 4 of the backbone predict the responses
# through receptive fields that are smooth functions of the voxel's place. There is no retrieval; tools/test.py scores
# the predicted responses to the test images.
_base_ = 'pretrain_nsd.py'
model = dict(neck=None, fmri_encoder=None, contrastive=None, guidance=None)
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(_delete_=True, type='mmnfn.ResponseMetric')
