# Voxel-wise encoding (PCC) of the held-out subject with a frozen Swin-S:
#   python tools/test.py configs/encoding/swin-s_nsd.py work_dirs/pretrain_nsd/backbone_latest.pth
_base_ = ['../_base_/backbones/swin-s.py', '../_base_/datasets/nsd_encoding.py', '../_base_/runtimes/mmpretrain.py']
model = dict(type='mmnfn.BackboneFeatures', backbone=dict(_base_.backbone_swin_s, out_indices=(0, 1, 2, 3)))
