# pretrain.py with a micro ConvNeXt.
_base_ = ['pretrain.py', '../_base_/backbones/convnext-micro.py']
model = dict(backbone=dict(_base_.backbone_convnext, _delete_=True, out_indices=(1, 2, 3)))
