# pretrain_nsd_clip.py with the backbone of pretrain_nsd_convnext-s.py.
#   tools/dist_train.sh configs/nfn/pretrain_nsd_clip_convnext-s.py 2
_base_ = 'pretrain_nsd_clip.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='small',
        out_indices=(3,),
        drop_path_rate=0.2,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
    )
)
