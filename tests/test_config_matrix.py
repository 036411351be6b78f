"""Configs of the tables: rows differ only in the initialisation, and train and test when made small."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import label_to_onehot
from small_configs import BACKBONES as SMALL, make_small_transfer

from mmnfn.engine.checkpoint import export_random

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
INITS = ('random', 'imagenet', 'clip', 'nfn', 'nfn-shuffled')
BACKBONES = ('swin-s', 'convnext-s')
TABLES = {
    'mask_rcnn/mask-rcnn_{}-{}_fpn_1x_coco.py': 'coco',
    'mask_rcnn/mask-rcnn_{}-{}_fpn_3x_coco.py': 'coco',
    'upernet/{}-{}_upernet_8xb2-160k_ade20k-512x512.py': 'ADEChallengeData2016',
    'mask_rcnn/mask-rcnn_{}-frozen-{}_fpn_1x_coco.py': 'coco',
    'linear/{}-{}_linear_8xb2-40k_ade20k-512x512.py': 'ADEChallengeData2016',
}
FROZEN = [table for table in TABLES if 'frozen' in table or 'linear' in table]
ROWS = [
    (table, init, backbone)
    for table in TABLES
    for backbone in BACKBONES
    for init in INITS
    if table not in FROZEN or init == 'nfn' or (backbone == 'swin-s' and init in ('random', 'nfn-shuffled'))
]
# The others differ from nfn only in the name of the file; random weights are enough for one backbone and schedule.
STEPPED = [row for row in ROWS if row[1] == 'nfn' or row[1:] == ('random', 'swin-s') and '3x' not in row[0]]


def load(table, init, backbone):
    return Config.fromfile(CONFIGS / table.format(init, backbone))


def test_every_downstream_config_is_a_row():
    rows = {table.format(init, backbone) for table, init, backbone in ROWS}
    assert rows == {
        str(p.relative_to(CONFIGS))
        for name in ('linear', 'mask_rcnn', 'upernet')
        for p in (CONFIGS / name).glob('*.py')
    }


@pytest.mark.parametrize('table, backbone', [(table, b) for table, init, b in ROWS if init == 'random'])
def test_rows_differ_only_in_the_initialisation(table, backbone):
    contents = {}
    for init in [init for init in INITS if (table, init, backbone) in ROWS]:
        cfg = load(table, init, backbone).to_dict()
        init_cfg = cfg['model']['backbone'].pop('init_cfg', None)
        contents[init] = {key: value for key, value in cfg.items() if not key.startswith('init_')}, init_cfg
    assert all(content == contents['random'][0] for content, _ in contents.values())
    inits = {init: init_cfg for init, (_, init_cfg) in contents.items()}
    trunc_normal = dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0)
    assert inits.pop('random') == (
        trunc_normal if backbone == 'swin-s' else None
    )  # ConvNeXt's class has the same of its own
    files = {init: init_cfg.pop('checkpoint') for init, init_cfg in inits.items()}
    assert all(init_cfg == dict(type='Pretrained', prefix='backbone.') for init_cfg in inits.values())
    suffix = '' if backbone == 'swin-s' else f'_{backbone}'
    family = 'swin_small' if backbone == 'swin-s' else 'convnext-small'
    if 'imagenet' in files:
        assert re.fullmatch(rf'https://download.openmmlab.com/.*/{family}_[\w-]+\.pth', files.pop('imagenet'))
    for init in files:
        name = init.partition('nfn-')[2] if 'nfn' in init else init
        pretraining = '_'.join(filter(None, ['pretrain_nsd', name])) + suffix
        assert files[init] == f'work_dirs/{pretraining}/backbone_latest.pth'
        assert (CONFIGS / 'nfn' / f'{pretraining}.py').is_file()


@pytest.mark.parametrize('backbone', BACKBONES)
def test_random_weights_are_those_of_the_backbones_authors(backbone, tmp_path):
    """Linear layers and pointwise convolutions: truncated normal of .02, biases 0."""
    suffix = '' if backbone == 'swin-s' else f'_{backbone}'
    cfg = Config.fromfile(CONFIGS / f'nfn/pretrain_nsd{suffix}.py')
    export_random(cfg, str(tmp_path / 'random.pth'))
    state = torch.load(tmp_path / 'random.pth', weights_only=True)['state_dict']
    name = r'.*\.(qkv|ffn\.layers\S*|reduction|pointwise_conv\d)\.'
    weights = [value for key, value in state.items() if re.fullmatch(name + 'weight', key)]
    biases = [value for key, value in state.items() if re.fullmatch(name + 'bias', key)]
    assert len(weights) > 60 and all(abs(float(weight.std()) - 0.02) < 0.001 for weight in weights)
    assert len(biases) > 60 and not any(bias.any() for bias in biases)


def test_schedules_differ_only_in_length_and_augmentation():
    for backbone in BACKBONES:
        short, long = (load(f'mask_rcnn/mask-rcnn_{{}}-{{}}_fpn_{n}x_coco.py', 'nfn', backbone) for n in (1, 3))
        assert (short.train_cfg.max_epochs, long.train_cfg.max_epochs) == (12, 36)
        assert short.param_scheduler[1].milestones == [8, 11] and long.param_scheduler[1].milestones == [27, 33]
        assert all(short[key] == long[key] for key in ('model', 'optim_wrapper', 'test_dataloader'))


@pytest.fixture(scope='module')
def exports(tmp_path_factory):
    """Export each backbone made small, like pretraining with the last stage only."""
    folder = tmp_path_factory.mktemp('exports')
    for backbone in BACKBONES:
        suffix = '' if backbone == 'swin-s' else f'_{backbone}'
        cfg = Config.fromfile(CONFIGS / f'nfn/pretrain_nsd{suffix}.py')
        cfg.model.backbone.arch = SMALL[backbone]
        export_random(cfg, str(folder / f'{backbone}.pth'))
    return folder


def one_step(cfg, root):
    """Set one iteration of training and a test on the data of a folder."""
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(root)
    if 'roi_head' in cfg.model:
        cfg.test_evaluator.update(ann_file=str(root / 'annotations/instances_val2017.json'), nsd_images=None)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    cfg.log_processor = dict(by_epoch=False)
    cfg.visualizer.vis_backends = []


def test_image_labels_are_the_classes_of_the_boxes(world, tmp_path):
    cfg = Config.fromfile(CONFIGS / 'demo/linear_micro-multilabel_demo.py')
    content = json.loads((world / 'coco/annotations/instances_train2017.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    expected = {image['file_name']: set() for image in content['images']}
    files = {image['id']: image['file_name'] for image in content['images']}
    for annotation in content['annotations']:
        expected[files[annotation['image_id']]].add(names[annotation['category_id']])
    cfg.train_dataloader.dataset.data_root = str(world / 'coco')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        samples = [sample['data_samples'] for sample in DATASETS.build(cfg.train_dataloader.dataset)]
    assert len(samples) == len(expected)
    for sample in samples:
        labels = label_to_onehot(sample.gt_label, len(cfg.classes))
        assert {cfg.classes[i] for i in labels.nonzero()} == expected[Path(sample.img_path).name]


@pytest.mark.parametrize('table, init, backbone', STEPPED, ids=[Path(t.format(i, b)).stem for t, i, b in STEPPED])
def test_a_training_step_and_a_test(table, init, backbone, exports, world, tmp_path):
    cfg = load(table, init, backbone)
    demo = 'mask-rcnn_micro_fpn_demo.py' if 'mask' in table else 'upernet_micro_demo.py'
    make_small_transfer(cfg, backbone, Config.fromfile(CONFIGS / 'demo' / demo).classes)
    one_step(cfg, world / TABLES[table])
    if init != 'random':
        cfg.model.backbone.init_cfg.checkpoint = str(exports / f'{backbone}.pth')
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = tmp_path.name
    runner = Runner.from_cfg(cfg)
    before = {}

    def remember(model, inputs):
        """Keep the weights that the step starts from."""
        before.update({key: value.clone() for key, value in model.state_dict().items()})

    handle = runner.model.register_forward_pre_hook(remember)
    runner.train()
    handle.remove()
    exported = torch.load(exports / f'{backbone}.pth', weights_only=True)['state_dict']
    from_file = all(torch.equal(before[key], value) for key, value in exported.items())
    assert from_file == (init != 'random')
    after = runner.model.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values() if value.is_floating_point())
    moved = {key.split('.')[0] for key, value in after.items() if not torch.equal(value, before[key])}
    frozen = {'backbone'} if table in FROZEN else set()
    assert moved == {key.split('.')[0] for key in before} - frozen, 'every other part is trained'
    cfg.load_from = str(tmp_path / 'iter_1.pth')
    cfg.experiment_name = tmp_path.name + '_test'
    metrics = Runner.from_cfg(cfg).test()
    names = {'coco/bbox_mAP', 'coco/segm_mAP'} if 'mask' in table else {'mIoU', 'mAcc', 'aAcc'}
    assert names <= set(metrics) and all(0 <= metrics[name] <= 100 for name in names)
