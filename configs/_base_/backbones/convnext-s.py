# ConvNeXt-S of MMPretrain. Use as backbone=dict(_base_.backbone_convnext_s, …).
custom_imports = dict(imports=['mmnfn', 'mmpretrain.models'], allow_failed_imports=False)
backbone_convnext_s = dict(type='mmpretrain.ConvNeXt', arch='small')
