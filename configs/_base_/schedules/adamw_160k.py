# 160k iterations of AdamW, 1500 of them warm-up, then linearly to 0. The leaf config sets optim_wrapper.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
# The learning rates of the leaf configs are for 8 GPUs x 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=16)
