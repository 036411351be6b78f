# Linear probe of frozen ConvNeXt-S with the brain-guided weights, 40k iterations, ADE20K at 512 pixels.
_base_ = [
    '../_base_/downstream/linear.py',
    '../_base_/backbones/convnext-s.py',
    '../_base_/inits/convnext-s.py',
]
model = dict(
    backbone=dict(
        _base_.backbone_convnext_s,
        out_indices=[0, 1, 2, 3],
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        # frozen_stages leaves the norms of the outputs out
        frozen_stages=4,
        norm_cfg=dict(type='LN2d', eps=1e-6, requires_grad=False),
        init_cfg=_base_.init_nfn,
    )
)
