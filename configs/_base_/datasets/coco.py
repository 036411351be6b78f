# COCO 2017 as MMDetection has it; tested on all of val2017 and on val2017 without the images that NSD used. The
# list of those comes from
#   python tools/coco_nsd_overlap.py nsd_stim_info_merged.csv --ids data/coco/nsd_images.json
_base_ = 'mmdet::_base_/datasets/coco_instance.py'
val_evaluator = dict(
    _delete_=True,
    type='mmnfn.CocoNSDMetric',
    ann_file='data/coco/annotations/instances_val2017.json',
    nsd_images='data/coco/nsd_images.json',
)
test_evaluator = val_evaluator
