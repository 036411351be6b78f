# UPerNet with Swin-S, 160k iterations, ADE20K at 512 pixels: the recipe of MMSegmentation's Swin-S. The leaf config
# sets model.backbone.init_cfg; without it the weights are random.
_base_ = [
    '../backbones/swin-s.py',
    '../models/upernet.py',
    '../datasets/ade20k.py',
    '../schedules/adamw_160k.py',
    '../runtimes/mmseg.py',
]
model = dict(backbone=dict(_base_.backbone_swin_s, out_indices=(0, 1, 2, 3), drop_path_rate=0.3, pad_small_map=True))

# lr 6e-5 for batch size 16 = 8 GPUs x 2 images; another batch size b: lr = 6e-5 * b / 16, or --auto-scale-lr.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys={
            'absolute_pos_embed': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
            'norm': dict(decay_mult=0.0),
        }
    ),
)
