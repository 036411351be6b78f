# A linear probe on ADE20K at 512 pixels, without the frozen backbone, which the leaf config sets: all four stages,
# resized to the finest and concatenated, and a head without an activation, an affine map of the features. Its batch
# norm makes it indifferent to their scale. AdamW, rate and length as in DINOv2's linear probe (Oquab et al. 2024).
_base_ = ['../models/upernet.py', '../datasets/ade20k.py', '../schedules/adamw_160k.py', '../runtimes/mmseg.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=[96, 192, 384, 768],
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        num_convs=1,
        kernel_size=1,
        concat_input=False,
        channels=256,
        norm_cfg=_base_.norm_cfg,
        act_cfg=None,
        dropout_ratio=0.0,
        num_classes=150,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)

max_iters = 40000
train_cfg = dict(max_iters=max_iters, val_interval=4000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=max_iters, by_epoch=False),
]
# lr 1e-3 for batch size 16 = 8 GPUs x 2 images; another batch size b: lr = 1e-3 * b / 16, or --auto-scale-lr.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
