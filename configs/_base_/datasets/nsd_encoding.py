# Training and test images of the held-out subject: a ridge from frozen features to its voxels is fitted on the former
# and scored on the latter. Metrics are reported for each ROI: NSD's six classes, and areas that are labels of them.
data_root = 'data/nsd_store'
classes = ['prf-visualrois', 'floc-bodies', 'floc-faces', 'floc-places', 'floc-words', 'streams']
areas = ['V1', 'V2', 'V3', 'hV4', 'FFA', 'EBA', 'PPA', 'OPA', 'RSC', 'VWFA']
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
        roi_names=[*classes, *areas],
        test_mode=True,
        pipeline=[dict(type='mmnfn.PackNSDInputs')],
    ),
)
test_evaluator = dict(type='mmnfn.EncodingMetric')
test_cfg = dict()
