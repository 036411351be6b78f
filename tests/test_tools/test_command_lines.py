"""Errors of train.py, test.py and export_backbone.py come in one line, and the flags reach the config."""

import errno
import importlib.util
from pathlib import Path

import pytest
import torch
import toy_world
from mmengine.config import Config

from mmnfn.utils import UserError

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def tool(name):
    """Load a script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text(toy_world.CONFIG)
    return str(path)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=toy_world.ToyModel().state_dict(), meta={}), path)
    return str(path)


PRETRAINED = ['model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=nothing.pth']


@pytest.mark.parametrize(
    'arguments, error',
    [
        (['nothing.py'], "CONFIG: there is no file 'nothing.py'"),
        (['CONFIG', '--resume', 'nothing.pth'], "--resume: there is no file 'nothing.pth'"),
        (['CONFIG', '--auto-scale-lr'], '--auto-scale-lr: the config has no auto_scale_lr.base_batch_size'),
        (['CONFIG', '--amp'], '--amp: mixed precision needs a GPU'),
        (
            ['CONFIG', '--cfg-options', *PRETRAINED],
            "model.backbone.init_cfg.checkpoint: there is no file 'nothing.pth'",
        ),
        (
            ['CONFIG', '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'],
            "train_dataloader.dataset.data_root: there is no 'nowhere'",
        ),
        (['CONFIG', '--cfg-options', 'batchsize=3'], '--cfg-options batchsize: nothing but the config file reads'),
        (['CONFIG', '--launcher', 'pytorch'], '--launcher pytorch: the environment variable RANK is not set'),
    ],
)
def test_train_errors_are_one_line(config, capsys, monkeypatch, arguments, error):
    if '--amp' in arguments and torch.cuda.is_available():
        pytest.skip('there is a GPU')
    monkeypatch.delenv('RANK', raising=False)
    assert tool('train').main([argument.replace('CONFIG', config) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith('train.py: error: ') and error in err and err.count('\n') == 1


@pytest.mark.parametrize(
    'arguments, error',
    [
        (['CONFIG', 'nothing.pth'], "CHECKPOINT: there is no file 'nothing.pth'"),
        (['CONFIG', '--cfg-options', 'log_level=ERROR'], 'CHECKPOINT is missing: the model of CONFIG has weights'),
        (['CONFIG', 'CHECKPOINT', '--show-dir', 'a'], '--show, --show-dir: the config has no default_hooks.visual'),
        (['CONFIG', 'CHECKPOINT', '--tta'], '--tta: the config has no tta_model or no tta_pipeline'),
    ],
)
def test_test_errors_are_one_line(config, checkpoint, capsys, tmp_path, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    error = error.replace('of CONFIG', f'of {config}')
    places = dict(CONFIG=config, CHECKPOINT=checkpoint)
    for name, path in places.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    assert tool('test').main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith('test.py: error: ') and error in err and err.count('\n') == 1


def test_a_checkpoint_may_stand_behind_options():
    args = tool('test').parse_args(['a.py', '--work-dir', 'here', 'a.pth', '--cfg-options', 'a=1', 'b=2'])
    assert (args.config, args.checkpoint, args.cfg_options) == ('a.py', 'a.pth', dict(a=1, b=2))
    assert tool('test').parse_args(['a.py', '--work-dir', 'here']).checkpoint is None


def test_export_errors_are_one_line(config, capsys):
    assert tool('model_converters/export_backbone').main(['--random', config, 'out.pth']) == 2
    err = capsys.readouterr().err
    assert 'no backbone' in err and err.count('\n') == 1


def test_a_full_disk_is_named_in_one_line(config, capsys, tmp_path, monkeypatch):
    """The system's error with the path, and nothing half-written."""

    def full(file):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    options = ['default_hooks.checkpoint.type=mmnfn.ResumableCheckpointHook', 'log_level=ERROR']
    code = tool('train').main([config, '--work-dir', str(tmp_path / 'run'), '--cfg-options', *options])
    assert code == 2
    error = f"train.py: error: [Errno 28] No space left on device: '{tmp_path}/run/epoch_1.pth'\n"
    assert capsys.readouterr().err.endswith(error)
    assert not [path.name for path in (tmp_path / 'run').iterdir() if 'epoch_1' in path.name]


def test_train_flags_reach_the_config(config, checkpoint):
    train = tool('train')
    flags = ['--work-dir', 'here', '--resume', checkpoint, '--auto-scale-lr', '--no-validate', '--compile']
    args = train.parse_args([config, *flags, '--local-rank', '1', '--cfg-options', 'auto_scale_lr.base_batch_size=16'])
    cfg = train.merge_args(train.run_config.load_config(args.config, args.cfg_options), args)
    assert cfg.work_dir == 'here' and cfg.resume is True and cfg.load_from == checkpoint
    assert cfg.auto_scale_lr == dict(base_batch_size=16, enable=True) and cfg.compile_backbone is True
    assert cfg.val_cfg is None and cfg.val_dataloader is None and cfg.val_evaluator is None
    assert args.local_rank == 1
    args = train.parse_args([config, '--resume', '--local_rank', '2'])
    assert (args.resume, args.local_rank) == ('auto', 2)
    cfg = train.merge_args(train.run_config.load_config(config), train.parse_args([config]))
    assert cfg.work_dir == './work_dirs/toy' and 'resume' not in cfg


@pytest.mark.parametrize('scope, hook, folder', [('mmdet', dict(test_out_dir='out'), None), ('mmseg', {}, 'out')])
def test_drawing_in_each_library(scope, hook, folder):
    test = tool('test')
    args = test.parse_args(['a.py', 'a.pth', '--show-dir', 'out'])
    cfg = Config(dict(default_scope=scope, default_hooks=dict(visualization=dict(type='V')), visualizer=dict(type='W')))
    test.draw_predictions(cfg, args)
    assert cfg.default_hooks.visualization == dict(type='V', draw=True, show=False, wait_time=2, **hook)
    assert cfg.visualizer.get('save_dir') == folder


def test_tta_takes_the_configs_model_and_pipeline():
    test = tool('test')
    cfg = Config(dict(model=dict(type='M'), test_dataloader=dict(dataset=dict(pipeline=[])), tta_model=dict(type='T')))
    with pytest.raises(UserError, match='no tta_pipeline'):
        test.augment(cfg)
    cfg.tta_pipeline = [dict(type='P')]
    test.augment(cfg)
    assert cfg.model == dict(type='T', module=dict(type='M'))
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='P')]


def test_dumped_label_maps_are_small_and_without_scores(tmp_path):
    maps = torch.tensor([[[0, 3], [255, 2]]])
    sample = dict(seg_logits=dict(data=torch.zeros(9, 2, 2)), pred_sem_seg=dict(data=maps), img_path='a.jpg')
    dump = tool('test').DumpLabelMaps(out_file_path=str(tmp_path / 'a.pkl'))
    dump.process({}, [sample])
    (kept,) = dump.results
    assert set(kept) == {'pred_sem_seg', 'img_path'}
    assert kept['pred_sem_seg']['data'].dtype == torch.uint8 and kept['pred_sem_seg']['data'].tolist() == maps.tolist()
