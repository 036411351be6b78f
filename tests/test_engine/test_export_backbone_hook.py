"""The hook exports the weights of each checkpoint, on a toy model."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmnfn.engine.checkpoint import export_checkpoint
from mmnfn.engine.hooks import ExportBackboneHook


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
    train(tmp_path, epochs=2, checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1))
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


def test_the_tool_exports_what_the_hook_does(tmp_path):
    train(tmp_path)
    out = tmp_path / 'out' / 'backbone.pth'
    meta = export_checkpoint(str(tmp_path / 'epoch_2.pth'), str(out))
    by_hook = load(tmp_path / 'backbone_latest.pth')
    assert_same(load(out)['state_dict'], by_hook['state_dict'])
    assert load(out)['meta'] == meta
    same = ('epoch', 'iter', 'seed', 'backbone', 'subjects', 'versions')
    assert {key: meta[key] for key in same} == {key: by_hook['meta'][key] for key in same}
