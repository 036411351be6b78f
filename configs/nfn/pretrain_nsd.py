# NeuroFusionNet with Swin-S on NSD: seven subjects train, 100 epochs, 2 GPUs x 64 images.
#   tools/dist_train.sh configs/nfn/pretrain_nsd.py 2
# Shuffled-brain control: pretrain_nsd_shuffled.py; captions in place of brains: pretrain_nsd_clip.py
_base_ = [
    '../_base_/backbones/swin-s.py',
    '../_base_/models/neurofusionnet.py',
    '../_base_/datasets/nsd.py',
    '../_base_/schedules/nfn_100e.py',
    '../_base_/runtimes/mmpretrain.py',
]
model = dict(
    backbone=dict(_base_.backbone_swin_s, out_indices=(1, 2, 3), drop_path_rate=0.2, init_cfg=_base_.init_random),
    neck=dict(in_channels=(192, 384, 768)),
    encoding=dict(in_channels=(192, 384, 768)),
)
test_evaluator = [dict(type='mmnfn.RetrievalMetric'), dict(type='mmnfn.ResponseMetric')]
