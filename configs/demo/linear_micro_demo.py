# A linear probe of the frozen backbone, on the data and schedule of upernet_micro_demo.py: all four stages, resized to
# the finest and concatenated, and a head without an activation, an affine map of the features. Its batch norm makes it
# indifferent to their scale.
_base_ = 'upernet_micro_demo.py'
model = dict(
    backbone=dict(frozen_stages=3),
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=[32, 64, 128, 256],
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        num_convs=1,
        kernel_size=1,
        concat_input=False,
        channels=64,
        norm_cfg=_base_.norm_cfg,
        act_cfg=None,
        dropout_ratio=0.0,
        num_classes=len(_base_.classes),
        align_corners=False,
        loss_decode=_base_.model.decode_head.loss_decode,
    ),
    auxiliary_head=None,
)
# lr 5e-3 for batch size 8 = 1 process x 8 images.
optim_wrapper = dict(optimizer=dict(lr=5e-3))
