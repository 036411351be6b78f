# UPerNet with ConvNeXt-S, 160k iterations, ADE20K at 512 pixels: the recipe of MMSegmentation's ConvNeXt-S, with
# --amp on the command line instead of in the config. The leaf config sets model.backbone.init_cfg; without it the
# weights are random.
_base_ = [
    '../backbones/convnext-s.py',
    '../models/upernet.py',
    '../datasets/ade20k.py',
    '../schedules/adamw_160k.py',
    '../runtimes/mmseg.py',
]
model = dict(
    backbone=dict(
        _base_.backbone_convnext_s,
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.3,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
    ),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)

# lr 1e-4 for batch size 16 = 8 GPUs x 2 images; another batch size b: lr = 1e-4 * b / 16, or --auto-scale-lr.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(decay_rate=0.9, decay_type='stage_wise', num_layers=12),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
