# The caption baseline of pretrain_nsd.py: the same backbone, images, batches and schedule, and COCO's captions in
# place of brain responses. Text tower and tokenizer are open_clip's.
#   tools/dist_train.sh configs/nfn/pretrain_nsd_clip.py 2
_base_ = 'pretrain_nsd.py'
stim_info = 'data/nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv'
annotation_dir = 'data/coco'
model = dict(
    _delete_=True,
    type='mmnfn.CaptionCLIP',
    backbone=dict(_base_.model.backbone, out_indices=(3,)),
    neck=dict(in_channels=768),
    text_encoder=dict(type='mmnfn.CLIPTextEncoder'),
    contrastive=dict(type='mmnfn.ContrastiveLoss'),
)
caption = dict(type='mmnfn.LoadCaption', stim_info=stim_info, annotation_dir=annotation_dir)
train_dataloader = dict(dataset=dict(pipeline=[caption, dict(type='mmnfn.PackNSDInputs')]))
val_dataloader = dict(dataset=dict(pipeline=[dict(caption, random=False), dict(type='mmnfn.PackNSDInputs')]))
test_dataloader = val_dataloader
val_evaluator = dict(partner='text')
test_evaluator = dict(_delete_=True, type='mmnfn.RetrievalMetric', partner='text')
