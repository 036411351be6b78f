# pretrain_nsd.py with ten areas as ROIs. Of the six classes one holds nearly all voxels of the others; of these areas
# hardly two share any. Where the localisers of NSD overlap (FFA and VWFA can), a voxel belongs to both, as it does with
# the six classes: in simulated brains 0 to 0.3 % of the voxels are in two areas or more, and 23 to 27 % in two classes.
_base_ = 'pretrain_nsd.py'
roi_names = ['V1', 'V2', 'V3', 'hV4', 'FFA', 'EBA', 'PPA', 'OPA', 'RSC', 'VWFA']
model = dict(fmri_encoder=dict(roi_names=roi_names))
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(roi_names=roi_names))
