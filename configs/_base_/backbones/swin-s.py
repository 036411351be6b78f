# Swin-S of MMPretrain. Use as backbone=dict(_base_.backbone_swin_s, …).
custom_imports = dict(imports=['mmnfn', 'mmpretrain.models'], allow_failed_imports=False)
backbone_swin_s = dict(type='mmpretrain.SwinTransformer', arch='small', img_size=224)
