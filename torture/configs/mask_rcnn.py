# configs/demo/mask-rcnn_micro_fpn_demo.py, by epochs and with a data worker as in the full-size configs.
_base_ = '../../configs/demo/mask-rcnn_micro_fpn_demo.py'
model = dict(backbone=dict(init_cfg=None, drop_path_rate=0.1))
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
)
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=3)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=0, end=18)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4, max_keep_ckpts=2, save_optimizer=True))
