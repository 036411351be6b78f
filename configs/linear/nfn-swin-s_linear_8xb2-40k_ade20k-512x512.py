# Linear probe of frozen Swin-S with the brain-guided weights, 40k iterations, ADE20K at 512 pixels.
_base_ = [
    '../_base_/downstream/linear.py',
    '../_base_/backbones/swin-s.py',
    '../_base_/inits/swin-s.py',
]
model = dict(
    backbone=dict(
        _base_.backbone_swin_s,
        out_indices=(0, 1, 2, 3),
        pad_small_map=True,
        frozen_stages=3,
        init_cfg=_base_.init_nfn,
    )
)
