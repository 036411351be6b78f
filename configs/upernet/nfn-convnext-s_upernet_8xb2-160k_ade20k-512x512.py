# UPerNet, ConvNeXt-S with the brain-guided weights, 160k iterations, ADE20K at 512 pixels.
_base_ = ['../_base_/downstream/upernet_convnext-s.py', '../_base_/inits/convnext-s.py']
model = dict(backbone=dict(init_cfg=_base_.init_nfn))
