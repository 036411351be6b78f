"""From a config file and flags to the config of a run, and the errors that users can mend."""

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
from mmnfn.engine.cfg_options import CfgOptions

ROOT = Path(__file__).resolve().parents[2]


def write(path, text):
    path.write_text(text)
    return str(path)


def test_missing_config_is_named(tmp_path):
    path = str(tmp_path / 'nothing.py')
    with pytest.raises(FileNotFoundError, match=f'CONFIG.*{re.escape(path)}.*configs/'):
        run_config.load_config(path)


def test_checkpoint_in_the_place_of_the_config(tmp_path):
    with pytest.raises(ValueError, match='CONFIG.*epoch_1.pth.*CONFIG CHECKPOINT'):
        run_config.load_config(write(tmp_path / 'epoch_1.pth', ''))


def test_config_with_an_import_that_fails(tmp_path):
    path = write(tmp_path / 'a.py', "custom_imports = dict(imports=['no_such_package'], allow_failed_imports=False)")
    with pytest.raises(ValueError, match='CONFIG.*no_such_package.*requirements'):
        run_config.load_config(path)


def test_library_that_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'mmdet', None)
    with pytest.raises(ValueError, match='mmdet cannot be imported'):
        run_config.load_config(write(tmp_path / 'a.py', "default_scope = 'mmdet'"))


def test_options_are_merged(tmp_path):
    path = write(tmp_path / 'a.py', 'model = dict(b=1, c=2)')
    cfg = run_config.load_config(path, {'model.b': 5, 'resume': None})
    assert cfg.model == dict(b=5, c=2) and cfg.resume is None


def test_data_root_option_moves_every_path(tmp_path):
    path = write(
        tmp_path / 'a.py',
        """
data_root = 'data/coco/'
test_dataloader = dict(dataset=dict(datasets=[dict(data_root=data_root, ann_file='annotations/a.json')]))
test_evaluator = [dict(ann_file=data_root + 'annotations/a.json', other='data/coconut/a.json')]
""",
    )
    cfg = run_config.load_config(path, dict(data_root='/mnt/coco'))
    assert cfg.test_dataloader.dataset.datasets[0] == dict(data_root='/mnt/coco/', ann_file='annotations/a.json')
    assert cfg.test_evaluator[0] == dict(ann_file='/mnt/coco/annotations/a.json', other='data/coconut/a.json')


@pytest.mark.parametrize(
    'flag, own, expected', [('x', 'y', 'x'), (None, 'y', 'y'), (None, None, './work_dirs/my_config')]
)
def test_work_dir_priority(flag, own, expected):
    cfg = Config(dict(work_dir=own) if own else {})
    run_config.set_work_dir(cfg, 'configs/nfn/my_config.py', flag)
    assert cfg.work_dir == expected


def test_loader_defaults_are_mmpretrains_only():
    loaders = dict(
        train_dataloader=dict(num_workers=2),
        val_dataloader=None,
        test_dataloader=dict(num_workers=0, collate_fn=dict(type='mine')),
    )
    cfg = Config(dict(default_scope='mmpretrain', **loaders))
    run_config.set_loader_defaults(cfg)
    assert cfg.train_dataloader.collate_fn == dict(type='default_collate')
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.test_dataloader.collate_fn == dict(type='mine')
    assert cfg.test_dataloader.persistent_workers is False
    cfg = Config(dict(default_scope='mmdet', **loaders))
    run_config.set_loader_defaults(cfg)
    assert cfg.train_dataloader == dict(num_workers=2)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
def test_workers_do_not_persist_where_there_are_none(scope):
    """PyTorch refuses them, and configs ask for them."""
    loaders = dict(train_dataloader=dict(num_workers=0, persistent_workers=True), val_dataloader=dict(num_workers=1))
    cfg = Config(dict(default_scope=scope, **loaders))
    run_config.set_loader_defaults(cfg)
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.val_dataloader.get('persistent_workers') is not False


def test_batches_of_one_image_have_no_negatives():
    """Those of two processes are gathered."""
    cfg = Config(dict(model=dict(contrastive=dict()), train_dataloader=dict(batch_size=1)))
    run_config.check_batch_size(cfg, 2)
    with pytest.raises(ValueError, match='train_dataloader.batch_size=1: one image has no negatives'):
        run_config.check_batch_size(cfg, 1)


@pytest.mark.parametrize('norm, processes, refused', [('BN', 2, True), ('SyncBN', 2, False), ('SyncBN', 1, True)])
def test_batch_norm_needs_two_images(norm, processes, refused):
    """Of an image pooled to one value; synchronised, those of all processes count."""
    head = dict(norm_cfg=dict(type=norm), pool_scales=(1, 2))
    cfg = Config(dict(model=dict(decode_head=head), train_dataloader=dict(batch_size=1)))
    if not refused:
        return run_config.check_batch_size(cfg, processes)
    with pytest.raises(ValueError, match='model.decode_head pools an image to one value'):
        run_config.check_batch_size(cfg, processes)


def test_damaged_pictures_of_nsd_are_named_before_training(store, tmp_path):
    shutil.copytree(store, tmp_path / 'store')
    path = tmp_path / 'store/images_32.h5'
    dataset = dict(type='mmnfn.NSDDataset', data_root=str(path.parent), subjects=[1], images=path.name, pipeline=[])
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    run_config.check_data(cfg, ('train_dataloader',))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(ValueError, match='images_32.h5 is no readable HDF5 file'):
        run_config.check_data(cfg, ('train_dataloader',))


def test_amp_needs_an_accelerator(monkeypatch):
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match='--amp.*GPU'):
        run_config.enable_amp(cfg)
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    with pytest.raises(ValueError, match="--amp.*'ApexOptimWrapper'"):
        run_config.enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


@pytest.mark.parametrize(
    'card, asked, chosen', [(True, None, 'bfloat16'), (False, None, 'float16'), (True, 'float16', 'float16')]
)
def test_amp_takes_bfloat16_where_the_card_has_it(monkeypatch, card, asked, chosen):
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(run_config, '_has_bfloat16', lambda: card)
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    run_config.enable_amp(cfg, asked)
    scale = dict(enabled=False) if chosen == 'bfloat16' else 'dynamic'
    assert cfg.optim_wrapper == dict(type='AmpOptimWrapper', dtype=chosen, loss_scale=scale)


def test_optimizers_are_fused_on_gpus_only(monkeypatch):
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1.0))))
    run_config.use_accelerator(cfg)
    assert 'fused' not in cfg.optim_wrapper.optimizer
    monkeypatch.setattr(run_config, 'get_device', lambda: 'cuda')
    run_config.use_accelerator(cfg)
    assert cfg.optim_wrapper.optimizer.fused is True


def test_auto_scale_lr_needs_a_base_batch_size():
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=16)))
    run_config.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True and cfg.auto_scale_lr.base_batch_size == 16
    cfg = Config(dict(auto_scale_lr=dict(base_batch_size=16), optim_wrapper=dict(accumulative_counts=2)))
    run_config.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.base_batch_size == 8, 'of one iteration, as MMEngine counts'
    for settings in ({}, dict(auto_scale_lr=None), dict(auto_scale_lr=dict(enable=False))):
        with pytest.raises(ValueError, match='--auto-scale-lr.*base_batch_size'):
            run_config.enable_auto_scale_lr(Config(settings))


def test_data_root_of_the_data_sets_where_the_config_has_none(tmp_path):
    """As configs/encoding has it; where there are several, nobody can tell which one is meant."""
    dataset = 'dict(type="Toy", data_root="data/store", images="data/store/images.h5")'
    path = write(tmp_path / 'a.py', f'val_dataloader = dict(dataset={dataset})\ntest_dataloader = val_dataloader\n')
    cfg = run_config.load_config(path, dict(data_root='/mnt/store'))
    assert cfg.test_dataloader.dataset.to_dict() == dict(
        type='Toy', data_root='/mnt/store', images='/mnt/store/images.h5'
    )
    text = 'test_dataloader = dict(dataset=dict(datasets=[dict(data_root="a"), dict(data_root="b")]))\n'
    for content, found in ((text, 'a and b'), ('model = dict()\n', 'no data_root')):
        with pytest.raises(ValueError, match=f'--cfg-options data_root: .*a.py has {found} in its dataloaders'):
            run_config.load_config(write(tmp_path / 'a.py', content), dict(data_root='/mnt'))


def test_weights_replace_an_initialisation_at_random(tmp_path):
    """By a child config or by an option, which are merged with it."""
    write(
        tmp_path / 'a.py', "model = dict(backbone=dict(init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02)))\n"
    )
    child = write(tmp_path / 'b.py', "_base_ = 'a.py'\nmodel = dict(backbone=dict(init_cfg=dict(type='Pretrained')))\n")
    options = {f'model.backbone.init_cfg.{key}': value for key, value in (('type', 'Pretrained'), ('prefix', 'a.'))}
    assert run_config.load_config(child).model.backbone.init_cfg == dict(type='Pretrained')
    found = run_config.load_config(str(tmp_path / 'a.py'), options).model.backbone.init_cfg
    assert found == dict(type='Pretrained', prefix='a.')
    assert run_config.load_config(str(tmp_path / 'a.py')).model.backbone.init_cfg.std == 0.02


def test_an_option_that_changes_nothing_is_refused(tmp_path):
    path = write(tmp_path / 'a.py', 'max_epochs = 3\ndataset = dict(a=1)\ntrain_cfg = dict(max_epochs=max_epochs)\n')
    options = dict(find_unused_parameters=True, sync_bn='torch', efficient_conv_bn_eval=['backbone'])
    options.update({'train_cfg.max_epochs': 4, 'auto_scale_lr.enable': True, 'randomness.seed': 1})
    assert run_config.load_config(path, options).train_cfg.max_epochs == 4
    for key, end in (('max_epochs', 'the settings themselves: train_cfg.max_epochs.'), ('dataset.a', 'themselves.')):
        with pytest.raises(ValueError, match=f'--cfg-options {key}: nothing but the config file reads .*{end}$'):
            run_config.load_config(path, {key: 4})


def test_options_of_paths_move_them():
    """Variables of the shipped caption config that its transforms were made with, and one that nothing uses."""
    path = str(ROOT / 'configs/nfn/pretrain_nsd_clip.py')
    moved = dict(stim_info='/mnt/stim info.csv', annotation_dir='/mnt/coco', data_root='/mnt/store')
    cfg = run_config.load_config(path, moved)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        caption = loader.dataset.pipeline[0]
        found = dict(stim_info=caption.stim_info, annotation_dir=caption.annotation_dir)
        assert dict(found, data_root=loader.dataset.data_root) == moved
    with pytest.raises(ValueError, match='--cfg-options stim_info: nothing but the config file reads stim_info'):
        run_config.load_config(str(ROOT / 'configs/nfn/pretrain_nsd.py'), dict(stim_info='/mnt/a.csv'))


def test_resume(tmp_path, monkeypatch, capsys):
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
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(dict(weight=torch.ones(1000)), path)
    run_config.set_resume(cfg, path)
    assert cfg.load_from == path
    write(tmp_path / 'last_checkpoint', path)
    run_config.set_resume(cfg, 'auto')
    assert cfg.resume is True and cfg.load_from == path
    moved = tmp_path / 'moved'
    shutil.copytree(tmp_path, moved)
    cfg.work_dir = str(moved)
    run_config.set_resume(cfg, 'auto')
    assert cfg.load_from == str(moved / 'epoch_1.pth'), 'its own, and not that of the folder it was copied from'
    Path(cfg.load_from).unlink()
    run_config.set_resume(cfg, 'auto')
    assert cfg.load_from == path, 'checkpoints may have a folder of their own'


def test_batches_of_another_size_are_named(capsys):
    """They change the learning rate that is right, and the number of negatives."""
    loader, wrapper = dict(batch_size=4), dict(type='OptimWrapper')
    cfg = Config(dict(train_dataloader=loader, optim_wrapper=wrapper, auto_scale_lr=dict(base_batch_size=8)))
    run_config.note_batch_size(cfg, 2)
    cfg.optim_wrapper.accumulative_counts = 2
    run_config.note_batch_size(cfg, 1)
    assert capsys.readouterr().out == ''
    run_config.note_batch_size(cfg, 3)
    assert capsys.readouterr().out.startswith('Batches are of 24 samples (3 process(es) x 4 x 2 accumulated), and')
    cfg.auto_scale_lr.enable = True
    run_config.note_batch_size(cfg, 3)
    run_config.note_batch_size(Config(dict(train_dataloader=loader)), 3)
    assert capsys.readouterr().out == ''


def test_subjects_that_are_not_trained_are_named(capsys):
    def loader(*subjects):
        return dict(dataset=dict(type='mmnfn.NSDDataset', subjects=list(subjects)))

    cfg = Config(dict(train_dataloader=loader(1, 2), val_dataloader=loader(2), test_dataloader=loader(1, 3, 8)))
    run_config.note_subjects(cfg)
    assert capsys.readouterr().out.startswith(
        'test_dataloader has subject(s) subj03, subj08, which train_dataloader has not'
    )
    run_config.note_subjects(Config(dict(test_dataloader=loader(8))))  # an encoding
    run_config.note_subjects(Config(dict(train_dataloader=loader(1, 2), val_dataloader=loader('subj01', '2'))))
    alone = dict(dataset=dict(type='mmnfn.NSDDataset', subjects=1))  # by --cfg-options subjects=1
    run_config.note_subjects(Config(dict(train_dataloader=loader(1, 2), val_dataloader=alone)))
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    'training, testing, named',
    [
        ({}, dict(shuffle_pairs=0), 'test_dataloader.dataset.shuffle_pairs=0: .* score at chance'),
        (None, dict(shuffle_pairs=0), 'test_dataloader.dataset.shuffle_pairs=0: .* score at chance'),
        (None, dict(permute_rois=0), 'test_dataloader.dataset.permute_rois=0: .*names of ROIs that they are not of'),
        (dict(permute_rois=0), {}, 'test_dataloader.dataset.permute_rois is None, .*train_dataloader.*permute_rois=0'),
        ({}, dict(permute_positions=1), 'permute_positions is 1, .*permute_positions=None'),
        (dict(voxel_order='hilbert'), {}, "voxel_order is 'stored', .*voxel_order='hilbert'"),
        (
            dict(split='all'),
            dict(split='test'),
            "train_dataloader.dataset.split is 'all', which holds images that test",
        ),
        (dict(shuffle_pairs=0), {}, ''),
        (dict(permute_rois=0, voxel_order='stored'), dict(permute_rois=0), ''),
        ({}, dict(split='test'), ''),
        (None, dict(split='all', permute_positions=0), ''),
        (dict(split='all'), dict(split='train'), ''),
    ],
)
def test_controls_in_the_wrong_place_are_refused(training, testing, named):
    cfg = dict(test_dataloader=dict(dataset=dict(subjects=[1], **testing)))
    if training is not None:
        cfg['train_dataloader'] = dict(dataset=dict(subjects=1, **training))
    with pytest.raises(ValueError, match=named) if named else nullcontext():
        run_config.check_controls(Config(cfg), ('test_dataloader',))


@pytest.mark.parametrize('argument', ['stim_info', 'annotation_dir'])
def test_captions_that_are_missing_are_named_before_training(tmp_path, argument):
    caption = dict(type='mmnfn.LoadCaption', stim_info=str(tmp_path), annotation_dir=str(tmp_path))
    cfg = Config(dict(train_dataloader=dict(dataset=dict(data_root=str(tmp_path), pipeline=[caption]))))
    run_config.check_data(cfg, ('train_dataloader',))
    cfg.train_dataloader.dataset.pipeline[0][argument] = 'nowhere'
    with pytest.raises(FileNotFoundError, match=f'train_dataloader.dataset.pipeline, {argument}: there is no .nowhere'):
        run_config.check_data(cfg, ('train_dataloader',))


def test_mmengines_activation_checkpointing_is_refused():
    """The reason: what pictures alone go into is not trained. Should MMEngine mend that, this fails."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    turn_on_activation_checkpointing(model, ['0'])
    out = model(torch.ones(1, 2))
    assert not out.requires_grad
    run_config.refuse_activation_checkpointing(Config(dict(model=dict())))
    with pytest.raises(ValueError, match=r"activation_checkpointing=\['backbone'\].*with_cp=True"):
        run_config.refuse_activation_checkpointing(Config(dict(activation_checkpointing=['backbone'])))


@pytest.mark.parametrize('rank, local_rank, printed', [('0', '0', True), ('1', '1', False), ('4', '0', True)])
def test_an_error_is_printed_once_on_each_machine(monkeypatch, capsys, rank, local_rank, printed):
    """It may be the second machine alone that lacks a file."""
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setenv('LOCAL_RANK', local_rank)
    assert run_config.report_error('train.py', ValueError('no file')) == 2
    err = capsys.readouterr().err
    assert err.startswith('train.py: error: no file') == printed and err.count('\n') == int(printed)
    assert (platform.node() in err) == (rank == '4')


def test_what_cannot_be_resumed_is_named(tmp_path):
    """A file that is not there, also where last_checkpoint names it, or that was cut off."""
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match='--resume.*nothing.pth.*newest'):
        run_config.set_resume(cfg, 'nothing.pth')
    path = tmp_path / 'epoch_1.pth'
    write(tmp_path / 'last_checkpoint', str(path))
    with pytest.raises(FileNotFoundError, match='epoch_1.pth.* named by .*last_checkpoint'):
        run_config.set_resume(cfg, 'auto')
    for content in (b'', b'\0' * 40, b'\xff', b'..'):  # as a crash of the machine can leave it, or a hand
        (tmp_path / 'last_checkpoint').write_bytes(content)
        with pytest.raises(FileNotFoundError, match='--resume.* named by .*last_checkpoint.*Give .*--resume PATH'):
            run_config.set_resume(cfg, 'auto')
    write(tmp_path / 'last_checkpoint', str(path))
    torch.save(dict(weight=torch.ones(1000)), path)
    path.write_bytes(path.read_bytes()[:2000])
    for resume in ('auto', str(path)):
        with pytest.raises(ValueError, match='--resume.*epoch_1.pth is not a whole checkpoint'):
            run_config.set_resume(cfg, resume)
    assert 'resume' not in cfg


def test_missing_pretrained_checkpoint_is_named_with_its_key(tmp_path):
    path = write(tmp_path / 'backbone.pth', '')
    cfg = Config(
        dict(
            model=dict(
                backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=path)),
                heads=[dict(init_cfg=dict(type='Pretrained', checkpoint='https://a/b.pth'))],
            )
        )
    )
    run_config.check_pretrained(cfg)
    cfg.model.backbone.init_cfg.checkpoint = 'nothing.pth'
    with pytest.raises(FileNotFoundError) as error:
        run_config.check_pretrained(cfg)
    for text in ('model.backbone.init_cfg.checkpoint=PATH', "'nothing.pth'", 'model.backbone.init_cfg=None'):
        assert text in str(error.value)


def test_missing_data_is_named(tmp_path):
    dataset = dict(data_root=str(tmp_path), ann_file='a.json', pipeline=[dict(data_root='not a dataset')])
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset)), val_dataloader=None))
    loaders = ('train_dataloader', 'val_dataloader')
    with pytest.raises(FileNotFoundError, match='train_dataloader.dataset.dataset.ann_file.*a.json'):
        run_config.check_data(cfg, loaders)
    write(tmp_path / 'a.json', '{}')
    run_config.check_data(cfg, loaders)
    cfg.train_dataloader.dataset.dataset.data_root = 'nowhere'
    with pytest.raises(FileNotFoundError, match="'nowhere'.*train_dataloader.dataset.dataset.data_root=PATH"):
        run_config.check_data(cfg, loaders)
    run_config.check_data(cfg, ('val_dataloader',))
    cfg.train_dataloader.dataset.dataset.backend_args = dict(backend='petrel')
    run_config.check_data(cfg, loaders)


def test_option_without_value_is_an_error_of_the_command_line(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    assert parser.parse_args(['--cfg-options', 'a.b=[1,2]', 'c=None']).cfg_options == {'a.b': [1, 2], 'c': None}
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=1', 'config.py'])
    assert "'config.py' is not KEY=VALUE" in capsys.readouterr().err


def test_blanks_in_values_are_kept():
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions)
    values = ['a=/my data/two  blanks (1)/x.csv', 'b=[1, 2]', 'c=[ my dog, (a cat , 3) ]', 'd=1 2', "e='new folder'"]
    assert parser.parse_args(['--cfg-options', *values]).cfg_options == dict(
        a='/my data/two  blanks (1)/x.csv', b=[1, 2], c=['my dog', ('a cat', 3)], d='1 2', e='new folder'
    )


def test_a_file_that_could_not_be_written_is_named(tmp_path):
    """Before the run, and nothing is made."""
    (tmp_path / 'file').touch()
    run_config.check_writable(str(tmp_path / 'new/folder/metrics.json'), '--out')
    with pytest.raises(ValueError, match=f'--dump: .*predictions.pkl cannot be written.* {tmp_path}/file .*another pl'):
        run_config.check_writable(str(tmp_path / 'file/folder/predictions.pkl'), '--dump')
    with pytest.raises(ValueError, match='--out: .* is a folder'):
        run_config.check_writable(str(tmp_path), '--out')
    with pytest.raises(ValueError, match='--out: /proc/metrics.json cannot be written'):
        run_config.check_writable('/proc/metrics.json', '--out')
    with pytest.raises(ValueError, match='--work-dir: '):
        run_config.set_work_dir(Config({}), 'a.py', str(tmp_path / 'file/work'))
    assert [path.name for path in tmp_path.iterdir()] == ['file']
