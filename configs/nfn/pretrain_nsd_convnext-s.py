# NeuroFusionNet with ConvNeXt-S on NSD: seven subjects train, 100 epochs, 2 GPUs x 64 images.
#   tools/dist_train.sh configs/nfn/pretrain_nsd_convnext-s.py 2
_base_ = [
    '../_base_/backbones/convnext-s.py',
    '../_base_/models/neurofusionnet.py',
    '../_base_/datasets/nsd.py',
    '../_base_/schedules/nfn_100e.py',
    '../_base_/runtimes/mmpretrain.py',
]
model = dict(
    backbone=dict(
        _base_.backbone_convnext_s,
        out_indices=(1, 2, 3),
        drop_path_rate=0.2,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
    ),
    neck=dict(in_channels=(192, 384, 768)),
    encoding=dict(in_channels=(192, 384, 768)),
)
test_evaluator = [dict(type='mmnfn.RetrievalMetric'), dict(type='mmnfn.ResponseMetric')]
