# The control: pretrain_nsd_convnext-s.py with the brain responses of other images of the same subject.
_base_ = 'pretrain_nsd_convnext-s.py'
train_dataloader = dict(dataset=dict(shuffle_pairs=0))
