# Brainformer (Nguyen et al., 2025) as far as NeuroFusionNet's parts can express it, for Figure 3: two layers (instead
# of one) in which the brain regions interact, between their features, which L_bfg sees, and the context feature of
# L_con; features of the last map, no adapter, no L_enc, and the other ROIs of a sample as the
# only negatives of L_bfg.
#   tools/dist_train.sh configs/nfn/pretrain_nsd_brainformer.py 2
_base_ = './pretrain_nsd.py'
model = dict(
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=768),
    fmri_encoder=dict(interaction_layers=2, adapter=None),
    guidance=dict(negatives='roi'),
    encoding=None,
)
test_evaluator = dict(_delete_=True, type='mmnfn.RetrievalMetric')
