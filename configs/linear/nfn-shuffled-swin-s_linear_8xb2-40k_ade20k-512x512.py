# Linear probe of frozen Swin-S with weights from shuffled brains, 40k iterations, ADE20K at 512 pixels.
_base_ = 'nfn-swin-s_linear_8xb2-40k_ade20k-512x512.py'
model = dict(backbone=dict(init_cfg=_base_.init_nfn_shuffled))
