"""The hook exports the weights of each checkpoint, on a toy model."""

import pytest
import torch
from mmengine.hooks import Hook
from toy_run import Toy, make

from mmnfn.engine.checkpoint import export_checkpoint
from mmnfn.engine.hooks import ExportBackboneHook


class SnapshotHook(Hook):
    """Remember the model's weights at the end of every epoch, before anything is saved."""

    def __init__(self):
        self.states = []

    def after_train_epoch(self, runner):
        self.states.append({key: value.clone() for key, value in runner.model.state_dict().items()})


def train(folder, epochs=2, checkpoint=None, hooks=(), prefix='backbone.', **settings):
    """Train the toy model with the export hook; returns the runner."""
    torch.manual_seed(0)
    runner = make(
        folder,
        Toy(),
        epochs=epochs,
        hooks=[dict(type='mmnfn.ExportBackboneHook', prefix=prefix), *hooks],
        default_hooks=dict(checkpoint={'type': 'CheckpointHook', 'interval': 1, **(checkpoint or {})}),
        randomness=dict(seed=7),
        log_level='ERROR',
        **settings,
    )
    runner.train()
    return runner


def names(folder, pattern='backbone_*'):
    assert not list(folder.glob('work/.*')), 'temporary files'
    return sorted(path.name for path in folder.glob(f'work/{pattern}'))


def load(folder, name='backbone_latest.pth'):
    return torch.load(folder / 'work' / name, weights_only=True)


def assert_same(exported, model_state):
    """All and only the backbone's tensors, equal."""
    expected = {key: value for key, value in model_state.items() if key.startswith('backbone.')}
    assert list(exported) == list(expected) and 'backbone.scale' in expected
    assert all(torch.equal(exported[key], value) for key, value in expected.items())


def test_every_checkpoint_gets_an_export(tmp_path):
    snapshots = SnapshotHook()
    runner = train(tmp_path, epochs=3, hooks=[snapshots])
    assert names(tmp_path) == [*(f'backbone_epoch_{epoch}.pth' for epoch in (1, 2, 3)), 'backbone_latest.pth']
    for epoch in (1, 2, 3):
        content = load(tmp_path, f'backbone_epoch_{epoch}.pth')
        assert_same(content['state_dict'], snapshots.states[epoch - 1])
        assert (content['meta']['epoch'], content['meta']['iter'], content['meta']['seed']) == (epoch, 2 * epoch, 7)
    assert_same(load(tmp_path)['state_dict'], runner.model.state_dict())


def test_exports_follow_the_interval_by_iteration_and_end_with_the_last(tmp_path):
    train(tmp_path, checkpoint=dict(interval=2, by_epoch=False), train_cfg=dict(by_epoch=False, max_iters=5))
    assert names(tmp_path) == [*(f'backbone_iter_{step}.pth' for step in (2, 4, 5)), 'backbone_latest.pth']
    assert names(tmp_path, 'iter_*') == ['iter_2.pth', 'iter_4.pth', 'iter_5.pth']
    assert load(tmp_path, 'backbone_iter_2.pth')['meta']['iter'] == 2


def test_end_of_training_is_exported_though_no_checkpoint_is(tmp_path):
    runner = train(tmp_path, epochs=3, checkpoint=dict(interval=2, save_last=False))
    assert names(tmp_path) == ['backbone_epoch_2.pth', 'backbone_epoch_3.pth', 'backbone_latest.pth']
    assert_same(load(tmp_path)['state_dict'], runner.model.state_dict())


def test_old_exports_go_with_old_checkpoints_also_after_a_resume(tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/backbone_epoch_100.pth').write_text('of an earlier run')
    checkpoint = dict(max_keep_ckpts=2)
    train(tmp_path, epochs=3, checkpoint=checkpoint)
    other = ['backbone_epoch_100.pth']
    assert names(tmp_path) == [*other, 'backbone_epoch_2.pth', 'backbone_epoch_3.pth', 'backbone_latest.pth']
    train(tmp_path, epochs=4, checkpoint=checkpoint, resume=True)
    assert names(tmp_path) == [*other, 'backbone_epoch_3.pth', 'backbone_epoch_4.pth', 'backbone_latest.pth']
    assert names(tmp_path, 'epoch_*') == ['epoch_3.pth', 'epoch_4.pth']


@pytest.mark.parametrize('checkpoint', [{}, dict(interval=-1, save_last=False)], ids=['with', 'without checkpoint'])
def test_averaged_weights_are_exported_where_the_checkpoint_has_them(tmp_path, checkpoint):
    ema = dict(type='EMAHook', momentum=0.5)
    runner = train(tmp_path, hooks=[ema], checkpoint=checkpoint)
    exported = load(tmp_path)['state_dict']
    average = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module.state_dict()
    assert_same(exported, average)
    assert not torch.equal(exported['backbone.first.weight'], runner.model.backbone.first.weight)


def test_model_without_the_prefix_fails_before_training(tmp_path):
    with pytest.raises(ValueError, match="prefix: Toy has no weights under 'image_tower.'.*backbone, head"):
        train(tmp_path, prefix='image_tower.')
    assert names(tmp_path, '*.pth') == []


def test_the_tool_exports_what_the_hook_does(tmp_path):
    train(tmp_path)
    out = tmp_path / 'work' / 'out' / 'backbone.pth'
    meta = export_checkpoint(str(tmp_path / 'work/epoch_2.pth'), str(out))
    by_hook, by_tool = load(tmp_path), load(tmp_path, 'out/backbone.pth')
    assert_same(by_tool['state_dict'], by_hook['state_dict'])
    assert by_tool['meta'] == meta
    same = ('epoch', 'iter', 'seed', 'backbone', 'subjects', 'versions')
    assert {key: meta[key] for key in same} == {key: by_hook['meta'][key] for key in same}


def test_best_metric_checkpoint_gives_no_export():
    hook = ExportBackboneHook()
    hook.before_save_checkpoint(None, dict(meta={}, state_dict={}))
    hook.after_val_epoch(None)
    hook.after_train_iter(None, 0)  # would need a runner if anything were left to write
