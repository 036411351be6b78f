# The control: pretrain_nsd.py with each subject's voxels dealt to the ROIs at random, when it is tested too.
_base_ = 'pretrain_nsd.py'
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(permute_rois=0))
