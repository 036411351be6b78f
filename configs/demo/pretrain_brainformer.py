# configs/nfn/pretrain_nsd_brainformer.py made small, like pretrain.py.
_base_ = 'pretrain.py'
model = dict(fmri_encoder=dict(interaction_layers=2, adapter=None), guidance=dict(negatives='roi'), fusion=None)
