"""The tables' configs: rows differ in the initialisation alone, and each one trains and tests, made small."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmnfn.engine.export import export_random

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
INITS = ('random', 'imagenet', 'clip', 'nfn', 'nfn-shuffled')
BACKBONES = ('swin-s', 'convnext-s')
TABLES = {
    'mask_rcnn/mask-rcnn_{}-{}_fpn_1x_coco.py': 'coco',
    'mask_rcnn/mask-rcnn_{}-{}_fpn_3x_coco.py': 'coco',
    'upernet/{}-{}_upernet_8xb2-160k_ade20k-512x512.py': 'ADEChallengeData2016',
}
ROWS = [(table, init, backbone) for table in TABLES for backbone in BACKBONES for init in INITS]
SMALL = {
    'swin-s': dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]),
    'convnext-s': dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
}
CHANNELS = [8, 16, 32, 64]


def load(table, init, backbone):
    return Config.fromfile(CONFIGS / table.format(init, backbone))


def test_every_downstream_config_is_a_row():
    rows = {table.format(init, backbone) for table, init, backbone in ROWS}
    assert rows == {
        str(p.relative_to(CONFIGS)) for name in ('mask_rcnn', 'upernet') for p in (CONFIGS / name).glob('*.py')
    }


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('table', TABLES)
def test_rows_differ_in_the_initialisation_alone(table, backbone):
    contents = {}
    for init in INITS:
        cfg = load(table, init, backbone).to_dict()
        init_cfg = cfg['model']['backbone'].pop('init_cfg', None)
        contents[init] = {key: value for key, value in cfg.items() if not key.startswith('init_')}, init_cfg
    assert all(content == contents['random'][0] for content, _ in contents.values())
    inits = {init: init_cfg for init, (_, init_cfg) in contents.items()}
    assert inits.pop('random') is None
    assert {(i['type'], i['prefix']) for i in inits.values()} == {('Pretrained', 'backbone.')}
    suffix = '' if backbone == 'swin-s' else f'_{backbone}'
    family = 'swin_small' if backbone == 'swin-s' else 'convnext-small'
    assert re.fullmatch(rf'https://download.openmmlab.com/.*/{family}_[\w-]+\.pth', inits['imagenet']['checkpoint'])
    for init, name in (('clip', 'clip'), ('nfn', ''), ('nfn-shuffled', 'shuffled')):
        pretraining = '_'.join(filter(None, ['pretrain_nsd', name])) + suffix
        assert inits[init]['checkpoint'] == f'work_dirs/{pretraining}/backbone_latest.pth'
        assert (CONFIGS / 'nfn' / f'{pretraining}.py').is_file()


def test_schedules_differ_in_length_and_augmentation_alone():
    for backbone in BACKBONES:
        short, long = (load(f'mask_rcnn/mask-rcnn_{{}}-{{}}_fpn_{n}x_coco.py', 'nfn', backbone) for n in (1, 3))
        assert (short.train_cfg.max_epochs, long.train_cfg.max_epochs) == (12, 36)
        assert short.param_scheduler[1].milestones == [8, 11] and long.param_scheduler[1].milestones == [27, 33]
        assert (short.model, short.optim_wrapper, short.test_dataloader) == (
            long.model,
            long.optim_wrapper,
            long.test_dataloader,
        )


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    """An export of each backbone made small, with the last stage only, as pretraining writes it."""
    folder = tmp_path_factory.mktemp('exports')
    for backbone in BACKBONES:
        suffix = '' if backbone == 'swin-s' else f'_{backbone}'
        cfg = Config.fromfile(CONFIGS / f'nfn/pretrain_nsd{suffix}.py')
        cfg.model.backbone.arch = SMALL[backbone]
        export_random(cfg, str(folder / f'{backbone}.pth'))
    return folder


def shrink(node):
    """Sizes of a pipeline, for images of 96 pixels."""
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


def make_small(cfg, backbone, root, demo):
    """A config's own model, data and optimizer, for the simulated world and for seconds."""
    model = cfg.model
    model.backbone.arch = SMALL[backbone]
    classes = demo.classes
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
        paths = [str(root / f'annotations/instances_{split}2017.json') for split in ('train', 'val')]
        cfg.test_evaluator.update(ann_file=paths[1], nsd_images=None)
    else:
        model.data_preprocessor.size = (64, 64)
        for head, channels in ((model.decode_head, CHANNELS), (model.auxiliary_head, CHANNELS[2])):
            head.update(in_channels=channels, channels=16, num_classes=len(classes))
        shrink(model.test_cfg)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=min(loader.batch_size, 2))
        loader.dataset.data_root = str(root)
        loader.dataset.metainfo = dict(classes=classes)
        if 'roi_head' not in model:
            loader.dataset.update(type='BaseSegDataset', reduce_zero_label=True)
        shrink(loader.dataset.pipeline)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    cfg.log_processor = dict(by_epoch=False)
    cfg.visualizer.vis_backends = []


@pytest.mark.parametrize('table, init, backbone', ROWS, ids=[Path(t.format(i, b)).stem for t, i, b in ROWS])
def test_a_training_step_and_a_test(table, init, backbone, exports, world, tmp_path):
    cfg = load(table, init, backbone)
    demo = 'mask-rcnn_micro_fpn_demo.py' if 'mask' in table else 'upernet_micro_demo.py'
    make_small(cfg, backbone, world / TABLES[table], Config.fromfile(CONFIGS / 'demo' / demo))
    if init != 'random':
        cfg.model.backbone.init_cfg.checkpoint = str(exports / f'{backbone}.pth')
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = tmp_path.name
    runner = Runner.from_cfg(cfg)
    before = {}

    class Remember:
        """Weights that the step starts from."""

        def __init__(self):
            self.handle = runner.model.register_forward_pre_hook(self)

        def __call__(self, model, inputs):
            before.update({key: value.clone() for key, value in model.state_dict().items()})
            self.handle.remove()

    Remember()
    runner.train()
    exported = torch.load(exports / f'{backbone}.pth', weights_only=True)['state_dict']
    from_file = all(torch.equal(before[key], value) for key, value in exported.items())
    assert from_file == (init != 'random')
    after = runner.model.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values() if value.is_floating_point())
    moved = {key.split('.')[0] for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved == {key.split('.')[0] for key in before}, 'every part has learned'
    cfg.load_from = str(tmp_path / 'iter_1.pth')
    cfg.experiment_name = tmp_path.name + '_test'
    metrics = Runner.from_cfg(cfg).test()
    names = {'coco/bbox_mAP', 'coco/segm_mAP'} if 'mask' in table else {'mIoU', 'mAcc', 'aAcc'}
    assert names <= set(metrics) and all(0 <= metrics[name] <= 100 for name in names)
