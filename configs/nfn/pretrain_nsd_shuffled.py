# The control: pretrain_nsd.py with the brain responses of other images of the same subject.
_base_ = 'pretrain_nsd.py'
train_dataloader = dict(dataset=dict(shuffle_pairs=0))
