# The control: pretrain_nsd.py with each voxel said to be where another one of its ROI is, when it is tested too.
_base_ = 'pretrain_nsd.py'
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(permute_positions=0))
