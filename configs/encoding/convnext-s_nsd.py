# Voxel-wise encoding (PCC) of the held-out subject with a frozen ConvNeXt-S:
#   python tools/test.py configs/encoding/convnext-s_nsd.py work_dirs/pretrain_nsd_convnext-s/backbone_latest.pth
_base_ = ['../_base_/backbones/convnext-s.py', '../_base_/datasets/nsd_encoding.py', '../_base_/runtimes/mmpretrain.py']
model = dict(
    type='mmnfn.BackboneFeatures',
    backbone=dict(
        _base_.backbone_convnext_s,
        out_indices=(0, 1, 2, 3),
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
    ),
)
