# 100 epochs from an initial learning rate of 1e-4 (paper); AdamW, decay, warm-up and cosine are our choice.
# lr 1e-4 for batch size 128 = 2 GPUs x 64 images; another batch size b: lr = 1e-4 * b / 128, or --auto-scale-lr.
max_epochs = 100
warmup_epochs = 5
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.98), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            'relative_position_bias_table': dict(decay_mult=0.0),
            'log_scale': dict(decay_mult=0.0),
            'encoding.': dict(lr_mult=3.0),  # all fields start in the middle and have a way to go
        },
    ),
    clip_grad=dict(max_norm=20.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=warmup_epochs, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=5)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=128)
