# What images predict without a backbone: mean colours and Gabor energies, which have no weights to name.
#   python tools/test.py configs/encoding/low-level_nsd.py
_base_ = ['../_base_/datasets/nsd_encoding.py', '../_base_/runtimes/mmpretrain.py']
custom_imports = dict(imports=['mmnfn'], allow_failed_imports=False)
model = dict(type='mmnfn.BackboneFeatures', backbone=dict(type='mmnfn.LowLevelFeatures'))
