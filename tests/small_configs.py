"""Shipped configs made small, for the simulated world and for seconds."""

BACKBONES = {
    'swin-s': dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]),
    'convnext-s': dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
}
CHANNELS = [8, 16, 32, 64]
ROI_NAMES = ('prf-visualrois', 'floc-faces', 'streams')
ENCODER = dict(
    roi_names=ROI_NAMES,
    embed_dims=16,
    out_dims=24,
    num_heads=2,
    kernel_size=8,
    stride=4,
    position_dims=4,
    window_size=6,
    window_stride=3,
    num_queries=3,
)
"""Settings of a small fMRI encoder."""


def shrink(node):
    """Shrink the sizes in a pipeline to images of 96 pixels."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == 'scale':
                node[key] = (96, 96)
            elif key == 'scales':
                node[key] = [(96, 96), (80, 80)]
            elif key == 'crop_size':
                node[key] = (48, 64) if value == (384, 600) else (64, 64)
            elif key == 'stride' and isinstance(value, tuple):
                node[key] = (48, 48)
            else:
                shrink(value)
    elif isinstance(node, (list, tuple)):
        for child in node:
            shrink(child)


def make_small_transfer(cfg, backbone, classes):
    """Shrink model and pipelines of a detector or segmenter, and set the classes of the simulated world."""
    model = cfg.model
    model.backbone.arch = BACKBONES[backbone]
    if 'roi_head' in model:
        model.neck.update(in_channels=CHANNELS, out_channels=16)
        model.rpn_head.update(in_channels=16, feat_channels=16)
        head = model.roi_head
        head.bbox_roi_extractor.out_channels = head.mask_roi_extractor.out_channels = 16
        head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=len(classes))
        head.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=len(classes))
        for rpn in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
            rpn.update(nms_pre=50, max_per_img=30)
        model.train_cfg.rcnn.sampler.num = 16
        model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
    else:
        model.data_preprocessor.size = (64, 64)
        model.decode_head.update(in_channels=CHANNELS, channels=16, num_classes=len(classes))
        if model.auxiliary_head:
            model.auxiliary_head.update(in_channels=CHANNELS[2], channels=16, num_classes=len(classes))
        shrink(model.test_cfg)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=min(loader.batch_size, 2))
        loader.dataset.metainfo = dict(classes=classes)
        if 'roi_head' not in model:
            loader.dataset.update(type='BaseSegDataset', reduce_zero_label=True)
            for step in loader.dataset.pipeline:
                if step.type == 'mmnfn.LoadLabelMap':
                    step.num_classes = len(classes)
        shrink(loader.dataset.pipeline)


def make_small_pretraining(cfg, backbone, subjects):
    """Shrink the model of a pretraining or encoding, and set subjects and 32-pixel images of the simulated world."""
    model = cfg.model
    if 'arch' in model.backbone:
        model.backbone.arch = BACKBONES[backbone]
    if 'Swin' in model.backbone.type:
        model.backbone.pad_small_map = True
    if model.get('neck'):
        model.neck.in_channels = CHANNELS[-1] if isinstance(model.neck.in_channels, int) else CHANNELS[1:]
    if model.get('encoding'):
        model.encoding.in_channels = CHANNELS[1:]
    if model.get('fmri_encoder'):
        model.fmri_encoder.update(embed_dims=16, out_dims=32, num_heads=2)
    if 'text_encoder' in model:
        model.text_encoder.update(out_dims=32, width=16, heads=2, layers=1)
    for loader in (cfg.get(f'{kind}_dataloader') for kind in ('train', 'val', 'test')):
        if loader:
            loader.update(num_workers=0, persistent_workers=False)
            loader.dataset.update(subjects=subjects, images='images_32.h5')
