"""From a config file and flags to the config of a run, and the mistakes that are named before it begins."""

import argparse
import platform
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing

from mmnfn.engine import run_config
from mmnfn.utils import UserError

ROOT = Path(__file__).resolve().parents[2]


def write(path, text):
    path.write_text(text)
    return str(path)


def test_missing_config_is_named(tmp_path):
    path = str(tmp_path / 'nothing.py')
    with pytest.raises(FileNotFoundError, match=f'CONFIG.*{re.escape(path)}.*configs/'):
        run_config.load_config(path)


@pytest.mark.parametrize(
    'text, named',
    [
        ("custom_imports = dict(imports=['no_such_package'], allow_failed_imports=False)", 'no_such_package'),
        ("default_scope = 'mmdet'", 'mmdet'),
    ],
)
def test_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch, text, named):
    monkeypatch.setitem(__import__('sys').modules, 'mmdet', None)
    with pytest.raises(UserError, match=f'CONFIG.*a.py needs a package.*{named}.*requirements') as error:
        run_config.load_config(write(tmp_path / 'a.py', text))
    assert '\n' not in str(error.value)


def test_data_root_option_moves_every_path_below_it(tmp_path):
    text = (
        "data_root = 'a/coco/'\ntest_dataloader = dict(dataset=dict(datasets=[dict(data_root=data_root, x='x/y')]))\n"
    )
    text += "test_evaluator = [dict(ann_file=data_root + 'b.json', other='a/coconut/b.json')]\n"
    cfg = run_config.load_config(write(tmp_path / 'a.py', text), dict(data_root='/mnt/coco'))
    assert cfg.test_dataloader.dataset.datasets[0] == dict(data_root='/mnt/coco/', x='x/y')
    assert cfg.test_evaluator[0] == dict(ann_file='/mnt/coco/b.json', other='a/coconut/b.json')


@pytest.mark.parametrize('config', ['nfn/pretrain_nsd', 'encoding/swin-s_nsd', 'demo/upernet_micro_demo'])
def test_data_root_of_shipped_configs_can_be_moved(config):
    cfg = run_config.load_config(str(ROOT / f'configs/{config}.py'), dict(data_root='/mnt/store'))
    assert cfg.test_dataloader.dataset.data_root.rstrip('/') == '/mnt/store'


def test_options_of_paths_move_them():
    """Variables of the caption config that its transforms were made with, and one that nothing uses."""
    moved = dict(stim_info='/mnt/stim info.csv', annotation_dir='/mnt/coco', data_root='/mnt/store')
    cfg = run_config.load_config(str(ROOT / 'configs/nfn/pretrain_nsd_clip.py'), moved)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        caption = loader.dataset.pipeline[0]
        found = dict(stim_info=caption.stim_info, annotation_dir=caption.annotation_dir)
        assert dict(found, data_root=loader.dataset.data_root) == moved
    with pytest.raises(UserError, match='--cfg-options stim_info: nothing but the config file reads stim_info'):
        run_config.load_config(str(ROOT / 'configs/nfn/pretrain_nsd.py'), dict(stim_info='/mnt/a.csv'))


def test_an_option_that_changes_nothing_is_refused(tmp_path):
    path = write(tmp_path / 'a.py', 'max_epochs = 3\ndataset = dict(a=1)\ntrain_cfg = dict(max_epochs=max_epochs)\n')
    options = dict(find_unused_parameters=True, sync_bn='torch', efficient_conv_bn_eval=['backbone'], resume=None)
    options.update({'train_cfg.max_epochs': 4, 'auto_scale_lr.enable': True, 'randomness.seed': 1})
    assert run_config.load_config(path, options).train_cfg.max_epochs == 4
    for key in ('max_epochs', 'dataset.a'):
        with pytest.raises(
            UserError, match=f'--cfg-options {key}: nothing but the config file reads .* sets from it.$'
        ):
            run_config.load_config(path, {key: 4})


def test_blanks_of_a_path_are_kept():
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=run_config.CfgOptions)
    values = ['a=/my data/two  blanks/x.csv', 'b=[1, 2]', 'c=None', 'd=1.5']
    assert parser.parse_args(['--cfg-options', *values]).cfg_options == dict(
        a='/my data/two  blanks/x.csv', b=[1, 2], c=None, d=1.5
    )


def test_loaders_are_completed(monkeypatch):
    """As mmpretrain's own tools do; PyTorch refuses persistent workers where there are none."""
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cpu')
    loaders = dict(
        train_dataloader=dict(num_workers=2),
        val_dataloader=None,
        test_dataloader=dict(num_workers=0, collate_fn=dict(type='mine'), persistent_workers=True, pin_memory=True),
    )
    cfg = Config(dict(default_scope='mmpretrain', **loaders))
    run_config.set_loader_defaults(cfg)
    collate = dict(type='default_collate')
    assert cfg.train_dataloader == dict(num_workers=2, collate_fn=collate, persistent_workers=True, pin_memory=False)
    assert cfg.test_dataloader == dict(
        num_workers=0, collate_fn=dict(type='mine'), persistent_workers=False, pin_memory=False
    )
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    cfg = Config(dict(default_scope='mmdet', **loaders))
    run_config.set_loader_defaults(cfg)
    assert cfg.train_dataloader == dict(num_workers=2) and cfg.test_dataloader.pin_memory is True


def test_amp_needs_an_accelerator(monkeypatch):
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cpu')
    with pytest.raises(UserError, match='--amp.*GPU'):
        run_config.enable_amp(Config(dict(optim_wrapper=dict(type='OptimWrapper'))))
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    with pytest.raises(UserError, match="--amp.*'ApexOptimWrapper'"):
        run_config.enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


@pytest.mark.parametrize(
    'capability, asked, chosen',
    [((8, 0), None, 'bfloat16'), ((7, 5), None, 'float16'), ((9, 0), 'float16', 'float16')],
)
def test_amp_takes_bfloat16_where_the_card_has_it(monkeypatch, capability, asked, chosen):
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    run_config.enable_amp(cfg, asked)
    scale = dict(enabled=False) if chosen == 'bfloat16' else 'dynamic'
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', dtype=chosen, loss_scale=scale)


def test_activation_checkpointing_that_stops_gradients_is_refused():
    """The reason: a module whose inputs need no gradient is not trained. Should MMEngine mend that, this fails."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    turn_on_activation_checkpointing(model, ['0'])
    assert not model(torch.ones(1, 2)).requires_grad
    run_config.refuse_activation_checkpointing(Config(dict(model=dict())))
    with pytest.raises(UserError, match=r"activation_checkpointing=\['backbone'\].*with_cp=True"):
        run_config.refuse_activation_checkpointing(Config(dict(activation_checkpointing=['backbone'])))


def test_auto_scale_lr_needs_a_base_batch_size():
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=16), optim_wrapper=dict(accumulative_counts=2)))
    run_config.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=8), 'of one iteration, as MMEngine counts'
    for settings in ({}, dict(auto_scale_lr=None), dict(auto_scale_lr=dict(enable=False))):
        with pytest.raises(UserError, match='--auto-scale-lr.*base_batch_size'):
            run_config.enable_auto_scale_lr(Config(settings))


def test_batches_that_fit_neither_loss_nor_learning_rate_are_named(capsys):
    cfg = Config(dict(model=dict(contrastive=dict()), train_dataloader=dict(batch_size=1), optim_wrapper=dict()))
    with pytest.raises(UserError, match='train_dataloader.batch_size=1: one image has no negatives'):
        run_config.check_batch_size(cfg, 1)
    run_config.check_batch_size(cfg, 2)  # those of two processes are gathered
    cfg.train_dataloader.batch_size, cfg.auto_scale_lr = 4, dict(base_batch_size=8)
    run_config.check_batch_size(cfg, 2)
    cfg.optim_wrapper.accumulative_counts = 2
    run_config.check_batch_size(cfg, 1)
    assert capsys.readouterr().out == ''
    run_config.check_batch_size(cfg, 3)
    assert capsys.readouterr().out.startswith('Steps are of 24 samples, and the learning rate is meant for 8: --auto')
    cfg.auto_scale_lr.enable = True
    run_config.check_batch_size(cfg, 3)
    assert capsys.readouterr().out == ''


def test_resume_takes_the_newest_checkpoint_or_starts(tmp_path, monkeypatch, capsys):
    """Where there is nothing to resume, it is said once, and a run begins with the weights it was to begin with."""
    cfg = Config(dict(load_from='other.pth', work_dir=str(tmp_path)))
    run_config.set_resume(cfg, None)
    for rank in '01':
        monkeypatch.setenv('SLURM_PROCID', rank)
        run_config.set_resume(cfg, 'auto')
    assert 'resume' not in cfg and cfg.load_from == 'other.pth'
    assert capsys.readouterr().out.splitlines() == [
        f'--resume: {tmp_path} has no checkpoint yet, so training starts from the beginning.'
    ]
    path = write(tmp_path / 'epoch_1.pth', '')
    write(tmp_path / 'last_checkpoint', path)
    run_config.set_resume(cfg, 'auto')
    assert cfg.resume is True and cfg.load_from == path
    cfg.work_dir = shutil.copytree(tmp_path, tmp_path / 'moved')
    run_config.set_resume(cfg, 'auto')
    assert cfg.load_from == str(tmp_path / 'moved/epoch_1.pth'), 'its own, not that of the folder it was copied from'


def test_missing_checkpoints_are_named(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match='--resume.*nothing.pth.*--resume PATH'):
        run_config.set_resume(cfg, 'nothing.pth')
    write(tmp_path / 'last_checkpoint', str(tmp_path / 'epoch_1.pth'))
    with pytest.raises(FileNotFoundError, match='--resume.*epoch_1.pth'):
        run_config.set_resume(cfg, 'auto')
    assert 'resume' not in cfg
    heads = [dict(init_cfg=dict(type='Pretrained', checkpoint='https://a/b.pth'))]
    cfg.model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='nothing.pth')), heads=heads)
    with pytest.raises(FileNotFoundError) as error:
        run_config.check_pretrained(cfg)
    for text in ('model.backbone.init_cfg.checkpoint=PATH', "'nothing.pth'", 'model.backbone.init_cfg=None'):
        assert text in str(error.value)
    cfg.model.backbone = None
    run_config.check_pretrained(cfg)
    cfg.model.train_maps_only = True
    with pytest.raises(UserError, match='load_from is not set, .* load_from=PATH'):
        run_config.check_pretrained(cfg)
    cfg.load_from = 'nothing.pth'
    with pytest.raises(FileNotFoundError, match="load_from: there is no file 'nothing.pth'"):
        run_config.check_pretrained(cfg)


def test_missing_data_are_named():
    dataset = dict(data_root='nowhere', pipeline=[dict(data_root='not a dataset')])
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset)), val_dataloader=None))
    with pytest.raises(FileNotFoundError, match="'nowhere'.*train_dataloader.dataset.dataset.data_root=PATH"):
        run_config.check_data(cfg, run_config.LOADERS)
    run_config.check_data(cfg, ('val_dataloader',))


def test_damaged_images_of_nsd_are_named_before_training(store, tmp_path):
    shutil.copytree(store, tmp_path / 'store')
    path = tmp_path / 'store/images_32.h5'
    dataset = dict(type='mmnfn.NSDDataset', data_root=str(path.parent), subjects=[1], images=path.name, pipeline=[])
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    run_config.check_data(cfg, ('train_dataloader',))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(UserError, match='images_32.h5 is no HDF5 file'):
        run_config.check_data(cfg, ('train_dataloader',))


@pytest.mark.parametrize(
    'training, testing, named',
    [
        ({}, dict(shuffle_pairs=0), 'test_dataloader.dataset.shuffle_pairs=0: .* score at chance'),
        (None, dict(shuffle_pairs=0), 'test_dataloader.dataset.shuffle_pairs=0: .* score at chance'),
        (None, dict(permute_rois=0), 'test_dataloader.dataset.permute_rois=0: .*names of ROIs that they are not of'),
        (dict(permute_rois=0), {}, 'test_dataloader.dataset.permute_rois is None, .*train_dataloader.*permute_rois=0'),
        (dict(split='all'), dict(split='test'), "train_dataloader.dataset.split is 'all', which holds images that te"),
        (dict(shuffle_pairs=0), {}, ''),
        (dict(permute_rois=0, voxel_order='stored'), dict(permute_rois=0), ''),
        (None, dict(split='all', permute_positions=0), ''),
        (dict(split='all'), dict(split='train'), ''),
    ],
)
def test_controls_in_the_wrong_place_are_refused(training, testing, named):
    cfg = dict(test_dataloader=dict(dataset=dict(subjects=[1], **testing)))
    if training is not None:
        cfg['train_dataloader'] = dict(dataset=dict(subjects=1, **training))
    with pytest.raises(UserError, match=named) if named else nullcontext():
        run_config.check_controls(Config(cfg), ('test_dataloader',))


@pytest.mark.parametrize(
    'trained, tested, others, adapted',
    [([1, 2], [1, 3, 8], 'subj03, subj08', False), ([1, 2], 1, '', False), (None, [8], '', False), (3, [1], '', True)],
)
def test_subjects_that_are_not_trained_on_are_named(capsys, trained, tested, others, adapted):
    model = dict(train_maps_only=adapted)  # an adapted model knows the people of its pretraining, too
    cfg = Config(dict(model=model, test_dataloader=dict(dataset=dict(subjects=tested))))
    if trained:
        cfg.train_dataloader = dict(dataset=dict(subjects=trained))
    run_config.check_controls(cfg, ('test_dataloader',))
    out = capsys.readouterr().out
    assert (
        out.startswith(f'test_dataloader.dataset has {others}, which train_dataloader has not') if others else not out
    )


@pytest.mark.parametrize('rank, local_rank, printed', [('0', '0', True), ('1', '1', False), ('4', '0', True)])
def test_an_error_is_printed_once_on_each_machine(monkeypatch, capsys, rank, local_rank, printed):
    """It may be the second machine alone that lacks a file."""
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setenv('LOCAL_RANK', local_rank)
    assert run_config.report_error('train.py', ValueError('no file')) == 2
    err = capsys.readouterr().err
    assert err.startswith('train.py: error: no file') == printed and err.count('\n') == int(printed)
    assert (platform.node() in err) == (rank == '4')


def test_optimizers_are_fused_on_gpus_only(monkeypatch):
    for device, fused in (('cpu', None), ('cuda', True)):
        cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1.0))))
        monkeypatch.setattr(run_config, 'get_device', lambda device=device: device)
        run_config.use_accelerator(cfg)
        assert cfg.optim_wrapper.optimizer.get('fused') is fused
