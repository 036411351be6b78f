# Swin-S of MMPretrain. Use as backbone=dict(_base_.backbone_swin_s, …).
custom_imports = dict(imports=['mmnfn', 'mmpretrain.models'], allow_failed_imports=False)
# Swin's own random weights: MMPretrain has them in its classifiers, and without them PyTorch's are left. They are given
# where nothing is loaded; to load something there, init_cfg=dict(_delete_=True, type='Pretrained', …).
init_random = dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0)
backbone_swin_s = dict(type='mmpretrain.SwinTransformer', arch='small', img_size=224)
