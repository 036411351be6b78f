# Plain voxel regression: each voxel's response is a linear function of the average of the last stage.
_base_ = 'pretrain_nsd_encoding.py'
model = dict(backbone=dict(out_indices=(3,)), encoding=dict(in_channels=(768,), mode='pooled', max_voxels=60000))
