# 36 epochs of AdamW, 1000 iterations of warm-up, learning rate / 10 after epochs 27 and 33. The leaf config sets
# optim_wrapper.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
# The learning rates of the leaf configs are for 8 GPUs x 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=16)
