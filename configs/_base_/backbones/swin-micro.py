# A Swin small enough for two CPU cores, the same in pretraining, detection and segmentation at 64 pixels. The last
# stage keeps stride 16, or its map would have 2 x 2 cells there; window 4 divides the 16, 8, 4 and 4 tokens of a side.
# Its linear layers keep PyTorch's random weights: those of Swin-S are for layers three times as wide.
# Use as backbone=dict(_base_.backbone_micro, …).
custom_imports = dict(imports=['mmnfn', 'mmpretrain.models'], allow_failed_imports=False)
backbone_micro = dict(
    type='mmpretrain.SwinTransformer',
    arch=dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[2, 4, 8, 16]),
    img_size=64,
    window_size=4,
    drop_path_rate=0.0,
    pad_small_map=True,  # for smaller images
    stage_cfgs=[dict(), dict(), dict(downsample_cfg=dict(stride=1)), dict()],
)
