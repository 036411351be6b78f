# What Swin-S can start from, for model.backbone.init_cfg. The rows of a table differ in nothing else.
# ImageNet-1k: MMPretrain's own training, 300 epochs.
init_imagenet = dict(
    type='Pretrained',
    checkpoint='https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
    'swin_small_224_b16x64_300e_imagenet_20210615_110219-7f9d988b.pth',
    prefix='backbone.',
)
# The pretrainings of configs/nfn, all on the same images: captions, brains, brains with shuffled pairs.
init_clip = dict(type='Pretrained', checkpoint='work_dirs/pretrain_nsd_clip/backbone_latest.pth', prefix='backbone.')
init_nfn = dict(type='Pretrained', checkpoint='work_dirs/pretrain_nsd/backbone_latest.pth', prefix='backbone.')
init_nfn_shuffled = dict(
    type='Pretrained', checkpoint='work_dirs/pretrain_nsd_shuffled/backbone_latest.pth', prefix='backbone.'
)
