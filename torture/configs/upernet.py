# configs/demo/upernet_micro_demo.py from random weights, for a few iterations with a checkpoint every four.
_base_ = '../../configs/demo/upernet_micro_demo.py'
max_iters = 22
model = dict(backbone=dict(init_cfg=None, drop_path_rate=0.1))
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_iters=max_iters)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=1.0, begin=0, end=max_iters, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4, max_keep_ckpts=2, save_optimizer=True))
