"""Errors of train.py, test.py and export_backbone.py come in one line, and the flags reach the config."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import toy_world
from mmengine.config import Config

from mmnfn.engine import predictions

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def tool(name):
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f'tool_{Path(name).stem}', TOOLS / name)
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
    torch.save(dict(state_dict=toy_world.ToyModel(dict(type='BN')).state_dict(), meta={}), path)
    return str(path)


def assert_one_line(capsys, code, *texts):
    err = capsys.readouterr().err
    assert code == 2
    assert err.count('\n') == 1 and 'Traceback' not in err
    for text in texts:
        assert text in err


def test_train_errors_are_one_line(config, capsys, monkeypatch):
    train = tool('train.py')
    assert_one_line(capsys, train.main(['nothing.py']), "train.py: error: CONFIG: there is no file 'nothing.py'")
    assert_one_line(capsys, train.main([config, '--resume', 'nothing.pth']), "--resume: there is no file 'nothing.pth'")
    assert_one_line(capsys, train.main([config, '--auto-scale-lr']), 'auto_scale_lr.base_batch_size')
    if not torch.cuda.is_available():
        assert_one_line(capsys, train.main([config, '--amp']), '--amp', 'GPU')
    missing = [
        '--cfg-options',
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint=nothing.pth',
    ]
    assert_one_line(
        capsys, train.main([config, *missing]), "model.backbone.init_cfg.checkpoint: there is no file 'nothing.pth'"
    )
    missing = ['--cfg-options', 'train_dataloader.dataset.data_root=nowhere']
    assert_one_line(capsys, train.main([config, *missing]), "train_dataloader.dataset.data_root: there is no 'nowhere'")
    monkeypatch.delenv('RANK', raising=False)
    assert_one_line(capsys, train.main([config, '--launcher', 'pytorch']), '--launcher pytorch', 'tools/dist_train.sh')
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert train.main(['nothing.py']) == 2 and not capsys.readouterr().err


def test_test_errors_are_one_line(config, checkpoint, capsys):
    test = tool('test.py')
    assert_one_line(
        capsys, test.main([config, 'nothing.pth']), "test.py: error: CHECKPOINT: there is no file 'nothing.pth'"
    )
    assert_one_line(capsys, test.main([checkpoint, config]), 'CONFIG CHECKPOINT')
    assert_one_line(capsys, test.main([config, checkpoint, '--out', 'a.txt']), "--out: 'a.txt'", '.json')
    assert_one_line(capsys, test.main([config, checkpoint, '--dump', 'a.json']), "--dump: 'a.json'", '.pkl')
    for flag in ('--out', '--dump'):  # a folder that is a file
        unwritable = [flag, f'{checkpoint}/a.pkl']
        assert_one_line(capsys, test.main([config, checkpoint, *unwritable]), f'{flag}: {checkpoint}/a.pkl cannot be')
    assert_one_line(capsys, test.main([config, checkpoint, '--show-dir', 'a']), 'default_hooks.visualization')
    assert_one_line(capsys, test.main([config, checkpoint, '--tta']), '--tta', 'tta_model')


def test_export_errors_are_one_line(config, capsys):
    export = tool('model_converters/export_backbone.py')
    assert_one_line(capsys, export.main(['nothing.pth', 'out.pth']), "CHECKPOINT: there is no file 'nothing.pth'")
    assert_one_line(capsys, export.main(['--random', 'nothing.py', 'out.pth']), "CONFIG: there is no file 'nothing.py'")
    assert_one_line(capsys, export.main(['--random', config, 'out.pth']), 'no backbone')
    for wrong in (['out.pth'], ['a.pth', 'out.pth', '--random', config]):
        with pytest.raises(SystemExit) as error:
            export.main(wrong)
        assert error.value.code == 2 and 'CHECKPOINT OUT' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export.main(['--random', config, 'out.pth', '--prefix', 'model.'])
    assert '--prefix is of CHECKPOINT' in capsys.readouterr().err


def test_train_flags_reach_the_config(config, tmp_path):
    train = tool('train.py')
    torch.save({}, tmp_path / 'epoch_3.pth')
    args = train.parse_args(
        [
            config,
            '--work-dir',
            'here',
            '--resume',
            str(tmp_path / 'epoch_3.pth'),
            '--auto-scale-lr',
            '--no-validate',
            '--local-rank',
            '1',
            '--cfg-options',
            'auto_scale_lr.base_batch_size=16',
            'val_cfg.interval=3',
        ]
    )
    cfg = train.build_config(args)
    assert cfg.work_dir == 'here' and cfg.resume is True and cfg.load_from == str(tmp_path / 'epoch_3.pth')
    assert cfg.auto_scale_lr == dict(base_batch_size=16, enable=True)
    assert cfg.val_cfg is None and cfg.val_dataloader is None and cfg.val_evaluator is None
    assert args.local_rank == 1
    assert train.parse_args([config, '--resume']).resume == 'auto'
    assert train.parse_args([config, '--local_rank', '2']).local_rank == 2
    cfg = train.build_config(train.parse_args([config]))
    assert cfg.work_dir == './work_dirs/toy' and 'resume' not in cfg


def test_test_runs_and_writes_metrics(config, checkpoint, tmp_path, capsys):
    out = tmp_path / 'new' / 'metrics.json'
    dump = tmp_path / 'new' / 'predictions.pkl'
    code = tool('test.py').main(
        [
            config,
            checkpoint,
            '--work-dir',
            str(tmp_path / 'work'),
            '--out',
            str(out),
            '--dump',
            str(dump),
            '--cfg-options',
            'log_level=ERROR',
        ]
    )
    assert code == 0
    assert json.loads(out.read_text())['toy/count'] == toy_world.SIZE
    assert capsys.readouterr().out.splitlines()[-2].split() == ['toy/count', str(toy_world.SIZE)]
    assert dump.exists()


@pytest.mark.parametrize(
    'scope, expected',
    [
        ('mmpretrain', dict(enable=True, show=True, wait_time=3, out_dir='out')),
        ('mmdet', dict(draw=True, show=True, wait_time=3, test_out_dir='out')),
        ('mmseg', dict(draw=True, show=True, wait_time=3)),
    ],
)
def test_drawing_in_each_library(scope, expected):
    cfg = Config(dict(default_scope=scope, default_hooks=dict(visualization=dict(type='V')), visualizer=dict(type='W')))
    predictions.enable_drawing(cfg, True, 'out', 3)
    assert cfg.default_hooks.visualization == dict(type='V', **expected)
    assert cfg.visualizer.get('save_dir') == ('out' if scope == 'mmseg' else None)


def test_tta_defaults_of_detection_and_own_settings():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(type='M'),
            test_dataloader=dict(dataset=dict(dataset=dict(pipeline=pipeline))),
        )
    )
    predictions.enable_tta(cfg)
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module == dict(type='M')
    steps = cfg.test_dataloader.dataset.dataset.pipeline
    assert [step.type for step in steps] == ['LoadImageFromFile', 'TestTimeAug']
    assert 'flip' in steps[1].transforms[1][0].meta_keys
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(type='M'),
            tta_model=dict(type='T'),
            tta_pipeline=[dict(type='P')],
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    predictions.enable_tta(cfg)
    assert cfg.model == dict(type='T', module=dict(type='M'))
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='P')]
    with pytest.raises(ValueError, match='--tta: retrieval and encoding have no'):
        predictions.enable_tta(Config.fromfile(TOOLS.parent / 'configs/nfn/pretrain_nsd.py'))


def test_dumped_label_maps_are_small_and_without_scores(tmp_path):
    maps = torch.tensor([[[0, 3], [255, 2]]])
    sample = dict(seg_logits=dict(data=torch.zeros(9, 2, 2)), pred_sem_seg=dict(data=maps), img_path='a.jpg')
    dump = predictions.DumpSegResults(out_file_path=str(tmp_path / 'a.pkl'))
    dump.process({}, [sample])
    kept = dump.results[0]
    assert set(kept) == {'pred_sem_seg', 'img_path'}
    assert kept['pred_sem_seg']['data'].dtype == torch.uint8 and kept['pred_sem_seg']['data'].tolist() == maps.tolist()
