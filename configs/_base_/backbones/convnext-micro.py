# A ConvNeXt small enough for two CPU cores, as wide and deep as swin-micro.py, beside which it is used:
# backbone=dict(_base_.backbone_convnext, _delete_=True, …).
backbone_convnext = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[1, 1, 2, 1], channels=[32, 64, 128, 256]),
    drop_path_rate=0.0,
    layer_scale_init_value=1.0,
    gap_before_final_norm=False,
)
