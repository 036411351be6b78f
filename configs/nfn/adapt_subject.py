# A new person with little data: pretrain_nsd.py's model without any change but the map of subject 8, whom it has not
# seen. Retrieval is tested on the subject's test images.
#   python tools/train.py configs/nfn/adapt_subject.py
# From the first sessions alone, see docs/pretraining.md (train_dataloader.dataset.max_sessions).
_base_ = 'pretrain_nsd.py'
load_from = 'work_dirs/pretrain_nsd/epoch_100.pth'
model = dict(train_maps_only=True)

dataset = dict(subjects=[8])
train_dataloader = dict(
    batch_size=128,
    # goes on from pass to pass, so that a batch is full however few images there are
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    batch_sampler=None,
    dataset=dataset,
)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader

# 600 iterations x 128 images = 76,800: 143 passes through the 536 training images of the first session, 9 through the
# 8,302 of all 30.
# lr 1e-3 for batch size 128 = 1 GPU x 128 images. With weight decay the maps of other subjects would shrink.
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.0))
max_iters = 600
auto_scale_lr = dict(base_batch_size=128)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=20),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=20, end=max_iters),
]
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=max_iters, val_interval=max_iters)
log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters))
