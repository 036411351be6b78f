# configs/nfn/adapt_subject.py made small for a CPU: simulated subject 4. From its first 75 training images alone, by
# 73k id, which is a random order:
#   python tools/train.py configs/demo/adapt_subject.py --cfg-options train_dataloader.dataset.indices=75
_base_ = 'pretrain.py'
load_from = 'work_dirs/pretrain/epoch_6.pth'
model = dict(train_maps_only=True)

dataset = dict(subjects=[4])
train_dataloader = dict(
    batch_size=64,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    batch_sampler=None,
    dataset=dataset,
)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader

# 60 iterations x 64 images = 3,840: 51 passes through 75 images, 6 through all 675.
# lr 3e-3 for batch size 64 = 1 process x 64 images.
optim_wrapper = dict(optimizer=dict(lr=3e-3, weight_decay=0.0))
max_iters = 60
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=5),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=5, end=max_iters),
]
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=max_iters, val_interval=max_iters)
log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters))
