# NSD: subjects 1-7 train, subject 8 is held out (use it with configs/encoding). Make the stores with
#   python tools/prepare_nsd.py NSD_ROOT data/nsd_store --image-size 224
data_root = 'data/nsd_store'
images = 'images_224.h5'
subjects = [1, 2, 3, 4, 5, 6, 7]
# No flips and no crops: they would move what early visual cortex has seen elsewhere.
pipeline = [dict(type='mmnfn.PackNSDInputs')]
dataset = dict(
    type='mmnfn.NSDDataset',
    data_root=data_root,
    subjects=subjects,
    images=images,
    split='train',
    voxel_order='hilbert',  # so that the voxels of a token are neighbours; 'stored' is raster order
    pipeline=pipeline,
)
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    # In a step of all processes together: on two GPUs with 64 images each four groups of 32 images.
    batch_sampler=dict(type='mmnfn.SubjectBatchSampler', subjects_per_step=4),
    collate_fn=dict(type='mmnfn.collate_subject_batch'),
    dataset=dataset,
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type='mmnfn.SubjectBatchSampler'),
    collate_fn=dict(type='mmnfn.collate_subject_batch'),
    dataset=dict(dataset, split='test', test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmnfn.RetrievalMetric', per_subject=False, bootstraps=0)
test_evaluator = dict(type='mmnfn.RetrievalMetric')
