# UPerNet, Swin-S with random weights, 160k iterations, ADE20K at 512 pixels.
_base_ = ['../_base_/downstream/upernet_swin-s.py']
model = dict(backbone=dict(init_cfg=_base_.init_random))
