# Linear probe of frozen Swin-S with random weights, 40k iterations, ADE20K at 512 pixels.
_base_ = 'nfn-swin-s_linear_8xb2-40k_ade20k-512x512.py'
model = dict(backbone=dict(init_cfg=dict(_base_.init_random, _delete_=True)))
