# configs/nfn/pretrain_nsd.py made small for two CPU cores: micro Swin, 64 pixels, simulated subjects 1-3, 2 processes.
# Kernel, stride, windows and layers are the paper's; widths are smaller.
_base_ = [
    '../_base_/backbones/swin-micro.py',
    '../_base_/models/neurofusionnet.py',
    '../_base_/datasets/nsd.py',
    '../_base_/schedules/nfn_100e.py',
    '../_base_/runtimes/mmpretrain.py',
]
max_epochs = 6
data_root = 'data/sim/store'
model = dict(
    backbone=dict(_base_.backbone_micro, out_indices=(1, 2, 3)),
    neck=dict(in_channels=(64, 128, 256), pyramid_dims=64),
    fmri_encoder=dict(embed_dims=64, out_dims=128, num_heads=2),
    encoding=dict(in_channels=(64, 128, 256), num_voxels=512),
)

dataset = dict(data_root=data_root, images='images_64.h5', subjects=[1, 2, 3])
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    batch_sampler=dict(subjects_per_step=3),
    dataset=dataset,
)
val_dataloader = dict(batch_size=100, num_workers=0, persistent_workers=False, dataset=dataset)
test_dataloader = val_dataloader

# lr 1e-3 for batch size 64 = 2 processes x 32 images.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=64)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs, max_keep_ckpts=1))
test_evaluator = [dict(type='mmnfn.RetrievalMetric'), dict(type='mmnfn.ResponseMetric')]
