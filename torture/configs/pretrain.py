# configs/demo/pretrain.py for two subjects and two short epochs, with a checkpoint every few iterations.
_base_ = '../../configs/demo/pretrain.py'
max_epochs = 2
model = dict(backbone=dict(drop_path_rate=0.1))
dataset = dict(subjects=[1, 2])
train_dataloader = dict(batch_size=16, dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=1, end=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval=5, max_keep_ckpts=2))
