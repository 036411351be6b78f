# The caption baseline of pretrain.py: the same backbone, images, batches and schedule, and COCO's captions in place
# of brain responses.
_base_ = 'pretrain.py'
stim_info = 'data/sim/nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv'
annotation_dir = 'data/sim/coco_stimuli'
model = dict(
    _delete_=True,
    type='mmnfn.CaptionCLIP',
    backbone=dict(_base_.model.backbone, out_indices=(3,)),
    neck=dict(in_channels=256),
    text_encoder=dict(type='mmnfn.CLIPTextEncoder', out_dims=128, width=64, heads=2, layers=2),
    contrastive=dict(type='mmnfn.ContrastiveLoss'),
)
caption = dict(type='mmnfn.LoadCaption', stim_info=stim_info, annotation_dir=annotation_dir)
train_dataloader = dict(dataset=dict(pipeline=[caption, dict(type='mmnfn.PackNSDInputs')]))
val_dataloader = dict(dataset=dict(pipeline=[dict(caption, random=False), dict(type='mmnfn.PackNSDInputs')]))
test_dataloader = val_dataloader
val_evaluator = dict(partner='text')
test_evaluator = dict(_delete_=True, type='mmnfn.RetrievalMetric', partner='text')
