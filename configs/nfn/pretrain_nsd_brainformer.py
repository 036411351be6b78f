# Brainformer (Nguyen et al., 2025) as far as NeuroFusionNet's parts can express it, for Figure 3: interaction of the
# brain regions between ROI features and losses, no fusion with the image, no adapter, both losses.
#   tools/dist_train.sh configs/nfn/pretrain_nsd_brainformer.py 2
_base_ = './pretrain_nsd.py'
model = dict(fmri_encoder=dict(interaction_layers=2, adapter=None), guidance=dict(negatives='roi'), fusion=None)
