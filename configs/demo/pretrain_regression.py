# configs/nfn/pretrain_nsd_regression.py made small, like pretrain.py.
_base_ = 'pretrain_encoding.py'
model = dict(backbone=dict(out_indices=(3,)), encoding=dict(in_channels=(256,), mode='pooled', max_voxels=8000))
