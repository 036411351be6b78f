# configs/nfn/pretrain_nsd_areas.py made small, like pretrain.py.
_base_ = 'pretrain.py'
roi_names = ['V1', 'V2', 'V3', 'hV4', 'FFA', 'EBA', 'PPA', 'OPA', 'RSC', 'VWFA']
model = dict(fmri_encoder=dict(roi_names=roi_names))
train_dataloader = val_dataloader = test_dataloader = dict(dataset=dict(roi_names=roi_names))
