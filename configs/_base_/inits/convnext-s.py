# What ConvNeXt-S can start from, for model.backbone.init_cfg. The rows of a table differ in nothing else.
# ImageNet-1k: MMPretrain's own training, 300 epochs.
init_imagenet = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/'
    'convnext-small_32xb128_in1k_20221207-4ab7052c.pth',
    prefix='backbone.',
)
# The pretrainings of configs/nfn, all on the same images: captions, brains, brains with shuffled pairs.
init_clip = dict(
    type='Pretrained', checkpoint='work_dirs/pretrain_nsd_clip_convnext-s/backbone_latest.pth', prefix='backbone.'
)
init_nfn = dict(
    type='Pretrained', checkpoint='work_dirs/pretrain_nsd_convnext-s/backbone_latest.pth', prefix='backbone.'
)
init_nfn_shuffled = dict(
    type='Pretrained', checkpoint='work_dirs/pretrain_nsd_shuffled_convnext-s/backbone_latest.pth', prefix='backbone.'
)
