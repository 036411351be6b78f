# configs/encoding made small: micro Swin, 64 pixels, the simulated subject 4, which pretraining has not seen.
_base_ = ['../_base_/backbones/swin-micro.py', '../_base_/datasets/nsd_encoding.py', '../_base_/runtimes/mmpretrain.py']
model = dict(
    type='mmnfn.BackboneFeatures',
    backbone=dict(_base_.backbone_micro, out_indices=(3,)),
    low_level=dict(type='mmnfn.LowLevelFeatures'),  # metrics tell what the backbone adds to them
)
data_root = 'data/sim/store'
test_dataloader = dict(num_workers=0, dataset=dict(data_root=data_root, subjects=[4], images='images_64.h5'))
