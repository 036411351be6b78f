# configs/encoding/low-level_nsd.py in the simulated world, whose early voxels are Gabor energies themselves.
_base_ = 'encoding.py'
model = dict(backbone=dict(_delete_=True, type='mmnfn.LowLevelFeatures'), low_level=None)
