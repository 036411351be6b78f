# configs/demo/pretrain.py with a smaller model, two epochs of the few shared pictures of two subjects, checkpoints
# every four iterations: what is tested is how a run ends and goes on, not what it learns.
_base_ = '../../configs/demo/pretrain.py'
max_epochs = 2
model = dict(
    backbone=dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), drop_path_rate=0.1),
    neck=dict(in_channels=128),
    fmri_encoder=dict(embed_dims=32, out_dims=64),
)
dataset = dict(subjects=[1, 2])
train_dataloader = dict(batch_size=4, dataset=dict(dataset, split='test'))
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=4, max_keep_ckpts=2))
