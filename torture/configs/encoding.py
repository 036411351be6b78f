# configs/demo/encoding.py with the backbone of pretrain.py.
_base_ = '../../configs/demo/encoding.py'
model = dict(backbone=dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])))
test_dataloader = dict(dataset=dict(subjects=[2]))
test_evaluator = dict(bootstraps=10)
