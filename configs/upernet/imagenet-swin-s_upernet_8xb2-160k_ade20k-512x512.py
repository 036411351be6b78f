# UPerNet, Swin-S with ImageNet weights, 160k iterations, ADE20K at 512 pixels.
_base_ = ['../_base_/downstream/upernet_swin-s.py', '../_base_/inits/swin-s.py']
model = dict(backbone=dict(init_cfg=_base_.init_imagenet))
