# Training and test images of the held-out subject: a ridge from frozen features to its voxels is fitted on the former
# and scored on the latter.
data_root = 'data/nsd_store'
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_sampler=dict(type='mmnfn.SubjectBatchSampler'),
    collate_fn=dict(type='mmnfn.collate_subject_batch'),
    dataset=dict(
        type='mmnfn.NSDDataset',
        data_root=data_root,
        subjects=[8],
        images='images_224.h5',
        split='all',
        test_mode=True,
        pipeline=[dict(type='mmnfn.PackNSDInputs')],
    ),
)
test_evaluator = dict(type='mmnfn.EncodingMetric')
test_cfg = dict()
