# configs/demo/pretrain.py with a smaller model, two subjects, two epochs, a checkpoint every six iterations: the tests
# are about how a run stops and continues, not about what it learns.
_base_ = '../../configs/demo/pretrain.py'
max_epochs = 2
model = dict(
    backbone=dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), drop_path_rate=0.1),
    neck=dict(in_channels=128),
    fmri_encoder=dict(embed_dims=32, out_dims=64),
)
dataset = dict(subjects=[1, 2])
train_dataloader = dict(batch_size=32, batch_sampler=dict(subjects_per_step=2), dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=6, max_keep_ckpts=2))
