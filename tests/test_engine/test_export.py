"""The export hook and the exports themselves, on a toy model."""

import errno
import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmnfn.disk import NoRoom
from mmnfn.engine import export
from mmnfn.engine.config_nodes import literal_config
from mmnfn.engine.hooks import ExportBackboneHook

ROOT = Path(__file__).resolve().parents[2]


class Toy(BaseModel):
    """A backbone with a buffer, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 1)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.head(self.backbone(torch.stack(list(inputs)))).square().mean())


class Numbers(Dataset):
    """Eight vectors."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.full((3,), float(index)))


class SnapshotHook(Hook):
    """Remember the model's weights at the end of every epoch, before anything is saved."""

    def __init__(self):
        self.states = []

    def after_train_epoch(self, runner):
        self.states.append({key: value.clone() for key, value in runner.model.state_dict().items()})


def train(tmp_path, epochs=2, train_cfg=None, resume=False, checkpoint=None, hooks=(), **hook):
    """Train the toy model with the export hook; returns the runner."""
    torch.manual_seed(0)
    runner = Runner(
        model=Toy(),
        work_dir=str(tmp_path),
        train_dataloader=dict(batch_size=4, dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=train_cfg or dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=checkpoint or dict(type='CheckpointHook', interval=1)),
        custom_hooks=[dict(type='mmnfn.ExportBackboneHook', **hook), *hooks],
        randomness=dict(seed=7),
        resume=resume,
        log_level='ERROR',
        experiment_name=f'{tmp_path.name}_{len(list(tmp_path.iterdir()))}',
    )
    runner.train()
    return runner


def exports(tmp_path):
    return sorted(path.name for path in tmp_path.glob('backbone_*')), [p.name for p in tmp_path.glob('.*')]


def load(path):
    return torch.load(path, weights_only=True)


def assert_same(exported, model_state):
    """All and only the backbone's tensors, equal."""
    expected = {key: value for key, value in model_state.items() if key.startswith('backbone.')}
    assert list(exported) == list(expected)
    for key, value in expected.items():
        assert torch.equal(exported[key], value), key


def test_every_checkpoint_gets_an_export(tmp_path):
    snapshots = SnapshotHook()
    runner = train(tmp_path, epochs=3, hooks=[snapshots])
    assert exports(tmp_path) == (
        ['backbone_epoch_1.pth', 'backbone_epoch_2.pth', 'backbone_epoch_3.pth', 'backbone_latest.pth'],
        [],
    )
    for epoch in (1, 2, 3):
        content = load(tmp_path / f'backbone_epoch_{epoch}.pth')
        assert_same(content['state_dict'], snapshots.states[epoch - 1])
        assert content['meta']['epoch'] == epoch and content['meta']['iter'] == 2 * epoch
        assert content['meta']['seed'] == 7
    assert_same(load(tmp_path / 'backbone_latest.pth')['state_dict'], runner.model.state_dict())
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    assert_same(load(tmp_path / 'backbone_epoch_2.pth')['state_dict'], saved)


def test_interval_by_iteration_and_the_last_one(tmp_path):
    train(
        tmp_path,
        train_cfg=dict(by_epoch=False, max_iters=5),
        checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False),
    )
    names = [f'backbone_iter_{step}.pth' for step in (2, 4, 5)]
    assert exports(tmp_path)[0] == names + ['backbone_latest.pth']
    assert sorted(path.name for path in tmp_path.glob('iter_*')) == ['iter_2.pth', 'iter_4.pth', 'iter_5.pth']
    assert load(tmp_path / names[0])['meta']['iter'] == 2


def test_end_of_training_is_exported_though_no_checkpoint_is(tmp_path):
    runner = train(tmp_path, epochs=3, checkpoint=dict(type='CheckpointHook', interval=2, save_last=False))
    assert exports(tmp_path)[0] == ['backbone_epoch_2.pth', 'backbone_epoch_3.pth', 'backbone_latest.pth']
    assert_same(load(tmp_path / 'backbone_latest.pth')['state_dict'], runner.model.state_dict())


def test_old_exports_go_with_old_checkpoints_also_after_a_resume(tmp_path):
    checkpoint = dict(type='CheckpointHook', interval=1, max_keep_ckpts=2)
    train(tmp_path, epochs=3, checkpoint=checkpoint)
    assert exports(tmp_path)[0] == ['backbone_epoch_2.pth', 'backbone_epoch_3.pth', 'backbone_latest.pth']
    train(tmp_path, epochs=4, checkpoint=checkpoint, resume=True)
    assert exports(tmp_path)[0] == ['backbone_epoch_3.pth', 'backbone_epoch_4.pth', 'backbone_latest.pth']
    assert sorted(path.name for path in tmp_path.glob('epoch_*')) == ['epoch_3.pth', 'epoch_4.pth']


def test_a_new_run_in_an_old_folder_keeps_its_own_exports(tmp_path):
    (tmp_path / 'backbone_epoch_100.pth').write_text('of an earlier run')
    train(tmp_path, epochs=2, max_keep_ckpts=1)
    assert exports(tmp_path)[0] == ['backbone_epoch_100.pth', 'backbone_epoch_2.pth', 'backbone_latest.pth']


def test_averaged_weights_are_exported_where_the_checkpoint_has_them(tmp_path):
    runner = train(tmp_path, hooks=[dict(type='EMAHook', momentum=0.5)])
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['state_dict']
    exported = load(tmp_path / 'backbone_latest.pth')['state_dict']
    assert_same(exported, saved)
    assert not torch.equal(exported['backbone.0.weight'], runner.model.backbone[0].weight)
    only_last = tmp_path / 'only_last'
    only_last.mkdir()
    train(
        only_last,
        hooks=[dict(type='EMAHook', momentum=0.5)],
        checkpoint=dict(type='CheckpointHook', interval=-1, save_last=False),
    )
    assert_same(load(only_last / 'backbone_latest.pth')['state_dict'], saved)


def test_model_without_the_prefix_fails_before_training(tmp_path):
    with pytest.raises(ValueError, match="prefix: Toy has no weights under 'image_tower.'.*backbone, head"):
        train(tmp_path, prefix='image_tower.')
    assert not list(tmp_path.glob('*.pth'))


def test_best_metric_checkpoint_gives_no_export():
    hook = ExportBackboneHook()
    hook.before_save_checkpoint(None, dict(meta={}, state_dict={}))
    hook.after_val_epoch(None)
    hook.after_train_iter(None, 0)  # would need a runner if anything were left to write


def test_other_prefix_becomes_backbone():
    state = OrderedDict([('tower.image.0.weight', torch.ones(2)), ('tower.brain.weight', torch.ones(3))])
    assert list(export.backbone_state(state, 'tower.image')) == ['backbone.0.weight']


def test_exported_views_do_not_drag_their_storage_along(tmp_path):
    big = torch.zeros(100_000)
    export.save_export(export.backbone_state({'backbone.a': big[:2]}), {}, str(tmp_path / 'a.pth'))
    assert (tmp_path / 'a.pth').stat().st_size < 5000


def test_metadata_is_plain_and_complete():
    cfg = Config(
        dict(
            model=dict(
                type='Wrapper',
                module=dict(
                    backbone=dict(
                        type='mmpretrain.SwinTransformer', arch=dict(depths=(1, 2)), init_cfg=dict(type='Pretrained')
                    )
                ),
            ),
            train_dataloader=dict(dataset=dict(dataset=dict(subjects=('subj01', 'subj02'), split='all'))),
        )
    )
    meta = export.backbone_meta(cfg, seed=np.int64(3), score=np.float32(0.5), path=__file__, nothing=None, flag=True)
    assert json.loads(json.dumps(meta)) == meta
    assert meta['backbone'] == dict(type='mmpretrain.SwinTransformer', arch=dict(depths=[1, 2]))
    assert (meta['subjects'], meta['split']) == (['subj01', 'subj02'], 'all')
    for alone in (1, 'subj01'):  # by --cfg-options subjects=1
        assert export.backbone_meta(dict(train_dataloader=dict(dataset=dict(subjects=alone))))['subjects'] == [alone]
    assert meta['seed'] == 3 and type(meta['seed']) is int and meta['score'] == 0.5 and meta['flag'] is True
    assert meta['versions']['torch'] == str(torch.__version__) and 'mmengine' in meta['versions']
    assert Config.fromstring(meta['config'], '.py').model.type == 'Wrapper'


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / 'backbone_latest.pth'
    export.save_export({'backbone.a': torch.ones(1)}, {}, str(path))
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(NoRoom, match=r'backbone_latest\.pth could not be written: .*No space left'):
        export.save_export({'backbone.a': torch.zeros(1)}, {}, str(path))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['backbone_latest.pth']


def test_export_of_a_training_checkpoint(tmp_path):
    train(tmp_path)
    out = tmp_path / 'out' / 'backbone.pth'
    meta = export.export_checkpoint(str(tmp_path / 'epoch_2.pth'), str(out))
    by_hook = load(tmp_path / 'backbone_latest.pth')
    assert_same(load(out)['state_dict'], by_hook['state_dict'])
    assert load(out)['meta'] == meta
    same = ('epoch', 'iter', 'seed', 'backbone', 'subjects', 'versions')
    assert {key: meta[key] for key in same} == {key: by_hook['meta'][key] for key in same}


def test_bad_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='CHECKPOINT.*nothing.pth'):
        export.export_checkpoint('nothing.pth', 'out.pth')
    (tmp_path / 'text.pth').write_text('no checkpoint')
    with pytest.raises(ValueError, match='CHECKPOINT.*text.pth is damaged'):
        export.export_checkpoint(str(tmp_path / 'text.pth'), 'out.pth')
    torch.save(dict(model=1), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match="other.pth has no state_dict.*'model': int"):
        export.export_checkpoint(str(tmp_path / 'other.pth'), 'out.pth')


def test_weights_of_a_foreign_file_can_be_taken_out(tmp_path):
    """A backbone alone, under the name of Microsoft's and timm's files, with an object that nobody here knows."""
    torch.save(dict(model={'a': torch.ones(2)}, config=Numbers()), tmp_path / 'foreign.pth')
    export.export_checkpoint(str(tmp_path / 'foreign.pth'), str(tmp_path / 'out.pth'), prefix='')
    content = load(tmp_path / 'out.pth')
    assert list(content['state_dict']) == ['backbone.a'] and content['meta']['config'] == ''


def test_the_config_in_a_checkpoint_is_not_run(tmp_path):
    """MMEngine would read the text by running it; what is literal in it is still understood."""
    trace = tmp_path / 'trace'
    text = f"""
import os
os.mkdir({str(trace)!r})
model = dict(type='A', backbone=dict(type='B', arch={{'x': [1, -2.5, (None, True)]}}, drop=0.1), head=dict(x=os.sep))
backbone = dict(type='C', run=os.mkdir({str(trace)!r}))
train_dataloader = dict(dataset=dict(subjects=[1, 2]))
"""
    torch.save(dict(state_dict={'backbone.a': torch.ones(2)}, meta=dict(cfg=text)), tmp_path / 'evil.pth')
    meta = export.export_checkpoint(str(tmp_path / 'evil.pth'), str(tmp_path / 'out.pth'))
    assert not trace.exists() and meta['config'] == text
    assert meta['backbone'] == {} and meta['subjects'] == [1, 2], 'a setting that needs running is left out'
    torch.save(
        dict(state_dict={'backbone.a': torch.ones(2)}, meta=dict(cfg=text.replace(', head=dict(x=os.sep)', ''))),
        tmp_path / 'evil.pth',
    )
    meta = export.export_checkpoint(str(tmp_path / 'evil.pth'), str(tmp_path / 'out.pth'))
    assert meta['backbone'] == dict(type='B', arch=dict(x=[1, -2.5, [None, True]]), drop=0.1) and not trace.exists()


def test_literal_reading_is_that_of_mmengine():
    """Of the texts that MMEngine prints, on a shipped config."""
    cfg = Config.fromfile(ROOT / 'configs/nfn/pretrain_nsd.py')
    settings = literal_config(cfg.pretty_text)
    expected = Config.fromstring(cfg.pretty_text, '.py').to_dict()
    assert settings == expected and settings['model']['backbone']['arch'] == 'small'
