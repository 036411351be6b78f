"""The hook stops a run before it trains or tests with weights that are not those of its checkpoint."""

import os
from contextlib import nullcontext

import pytest
import torch
import toy_run
from mmengine.hooks import EMAHook
from mmengine.model import BaseTTAModel
from toy_run import Backbone, Count, Numbers, Toy

from mmnfn.engine import LoadAuditHook
from mmnfn.engine.load_audit import LoadAuditError


class Command:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def make(folder, model, hooks=(), **settings):
    return toy_run.make(folder, model, hooks=[dict(type='mmnfn.LoadAuditHook'), *hooks], **settings)


def loaded(runner):
    """The hook of a runner whose checkpoint has just been loaded."""
    runner.call_hook('before_run')
    runner.load_or_resume()
    return next(hook for hook in runner.hooks if isinstance(hook, LoadAuditHook))


def log(folder):
    return '\n'.join(path.read_text() for path in (folder / 'work').glob('*/*.log'))


def save(path, state, **rest):
    torch.save(dict(state_dict=state, **rest), path)
    return str(path)


@pytest.fixture()
def export(tmp_path):
    """Path of an export of other weights, and its state dict."""
    torch.manual_seed(5)
    state = {f'backbone.{key}': torch.rand_like(value) for key, value in Backbone().state_dict().items()}
    return save(tmp_path / 'backbone.pth', state, meta={}), state


@pytest.fixture()
def whole(tmp_path):
    """Path of a whole model's weights."""
    return save(tmp_path / 'whole.pth', Toy().state_dict())


def init_cfg(path, **extra):
    return dict(type='Pretrained', checkpoint=path, **extra)


def test_a_full_load_trains_and_is_in_the_log(tmp_path, export):
    make(tmp_path, Toy(init_cfg=init_cfg(export[0], prefix='backbone.'))).train()
    assert f'backbone: 5 of 5 tensors loaded from {export[0]}' in log(tmp_path)
    assert (tmp_path / 'work/epoch_1.pth').exists()
    # what a resumed run once started from does not matter any more
    runner = make(tmp_path, Toy(init_cfg=init_cfg(export[0], prefix='backbone.')), epochs=2, resume=True)
    runner.train()
    assert runner.epoch == 2 and (tmp_path / 'work/epoch_2.pth').exists()


@pytest.mark.parametrize(
    'settings, message',
    [
        ({}, r"Give init_cfg.prefix='backbone.'"),
        (dict(prefix='backbone.', forgetful=True), r'has 1 tensors that fit.*other values \(second.bias\)'),
    ],
    ids=['wrong prefix', 'a loader that leaves weights out'],
)
def test_an_incomplete_load_ends_the_run_before_it_trains(tmp_path, export, settings, message):
    forgetful = settings.pop('forgetful', False)
    with pytest.raises(LoadAuditError, match=message):
        make(tmp_path, Toy(init_cfg=init_cfg(export[0], **settings), forgetful=forgetful)).train()
    assert not list((tmp_path / 'work').glob('*.pth')) and 'Load audit' in log(tmp_path)


WAYS = dict(
    init_cfg=lambda path: dict(model=Toy(init_cfg=init_cfg(path, prefix='backbone.'))),
    load_from=lambda path: dict(model=Toy(), load_from=path),
    auto=lambda path: dict(model=Toy(), resume=True),
    test=lambda path: dict(model=Toy(), load_from=path, train=False),
)


@pytest.mark.parametrize('way', WAYS)
def test_files_that_run_code_are_refused_before_they_are_loaded(tmp_path, way):
    trace, path = str(tmp_path / 'trace'), save(tmp_path / 'a.pth', Toy().state_dict(), x=Command(tmp_path / 'trace'))
    runner = make(tmp_path, **WAYS[way](path))
    (tmp_path / 'work/last_checkpoint').write_text(path)
    with pytest.raises(LoadAuditError, match='a.pth would import posix.mkdir'):
        runner.test() if way == 'test' else runner.train()
    assert not os.path.exists(trace)


def test_load_from_needs_the_backbone_and_leaves_the_rest_free(tmp_path, export):
    make(tmp_path, Toy(outputs=7), load_from=export[0]).train()
    assert f'backbone: 5 of 5 tensors loaded from {export[0]}' in log(tmp_path)
    path = str(tmp_path / 'less.pth')
    torch.save({key: value for key, value in export[1].items() if 'second' not in key}, path)
    with pytest.raises(LoadAuditError, match=r'it lacks 2 tensors \(backbone.second.weight, backbone.second.bias\)'):
        make(tmp_path, Toy(), load_from=path).train()


def test_load_from_does_not_go_through_the_backbones_own_loader(tmp_path):
    """A whole MMDetection checkpoint fits, whatever convert_weights says: it is for files of Microsoft's alone."""
    pytest.importorskip('mmdet')
    from mmdet.models import SwinTransformer

    sizes = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=2, pretrain_img_size=32)
    model = Toy()
    model.backbone = SwinTransformer(**sizes)
    path = save(tmp_path / 'whole.pth', model.state_dict())
    for change in (0, 1):
        model = Toy()
        model.backbone = SwinTransformer(**sizes, convert_weights=True)
        runner = make(tmp_path, model, load_from=path)
        hook = loaded(runner)
        model.backbone.norm3.weight.data += change
        wrong = pytest.raises(LoadAuditError, match=r'other values \(backbone.norm3.weight\)')
        with wrong if change else nullcontext():
            hook.before_train(runner)


def test_a_test_needs_the_whole_model(tmp_path, export, whole):
    with pytest.raises(LoadAuditError, match=r'it lacks 2 tensors \(head.weight, head.bias\)'):
        make(tmp_path, Toy(), train=False, load_from=export[0]).test()
    # the checkpoint that training would start from does not matter any more
    model = Toy(init_cfg=init_cfg('nowhere.pth', prefix='backbone.'))
    assert make(tmp_path, model, train=False, load_from=whole).test() == dict(count=2)
    assert 'model: 7 of 7 tensors loaded from' in log(tmp_path)


def test_a_checkpoint_of_classes_in_another_order_is_not_tested(tmp_path, monkeypatch):
    path = save(tmp_path / 'whole.pth', Toy().state_dict(), meta=dict(dataset_meta=dict(classes=('cat', 'dog'))))
    monkeypatch.setattr(Numbers, 'metainfo', dict(classes=['cat', 'dog']), raising=False)
    assert make(tmp_path, Toy(), train=False, load_from=path).test() == dict(count=2)
    monkeypatch.setattr(Numbers, 'metainfo', dict(classes=['dog', 'cat']))
    with pytest.raises(LoadAuditError, match="Label 0 is 'cat' by .*whole.pth.* and 'dog' by the dataset"):
        make(tmp_path, Toy(), train=False, load_from=path).test()


@pytest.mark.parametrize('permuted', [None, 3])
def test_a_control_is_not_tested_as_what_it_is_no_model_of(tmp_path, permuted):
    """The checkpoint of a training with permuted ROIs, with the config of the main one; metrics get its metadata."""
    meta = dict(cfg=f"train_dataloader = dict(dataset=dict(type='x', subjects=[1], permute_rois={permuted}))")
    path = save(tmp_path / 'whole.pth', Toy().state_dict(), meta=meta)
    data, metric = dict(dataset=dict(type='x', subjects=[1])), Count()
    runner = make(tmp_path, Toy(), train=False, load_from=path, metric=[metric])
    runner.cfg.update(train_dataloader=data, test_dataloader=data)
    if permuted is None:
        assert runner.test() == dict(count=2) and metric.meta == meta
        return
    with pytest.raises(LoadAuditError, match='whole.pth: test_dataloader.dataset.permute_rois is None.*permute_rois=3'):
        runner.test()


@pytest.mark.parametrize('library', ['mmengine', 'mmpretrain'])
def test_averaged_weights_are_those_of_the_checkpoint(tmp_path, library):
    """MMPretrain's EMAHook has the other ones in the model until the test begins."""
    hooks = [dict(type=f'{library}.EMAHook', momentum=0.2)]
    make(tmp_path, Toy(), hooks=hooks).train()
    path = str(tmp_path / 'work/epoch_1.pth')
    saved = torch.load(path, weights_only=False)
    assert not torch.equal(saved['state_dict']['head.bias'], saved['ema_state_dict']['module.head.bias'])
    assert make(tmp_path, Toy(), train=False, load_from=path, hooks=hooks).test() == dict(count=2)
    assert f'model: 7 of 7 tensors loaded from {path}' in log(tmp_path)
    make(tmp_path, Toy(), epochs=2, load_from=path, hooks=hooks).train()
    assert f'backbone: 5 of 5 tensors loaded from {path}' in log(tmp_path)
    runner = make(tmp_path, Toy(), train=False, load_from=path, hooks=hooks)
    hook = loaded(runner)
    ema = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
    ema.ema_model.module.head.bias.data += 1
    with pytest.raises(LoadAuditError, match=r'other values \(head.bias\)'):
        hook.before_test(runner)


class Augmented(BaseTTAModel):
    """Test-time augmentation."""

    def merge_preds(self, data_samples_list):
        return data_samples_list


def test_the_model_inside_test_time_augmentation_is_audited(tmp_path, whole):
    runner = make(tmp_path, Toy(), train=False, load_from=whole)
    hook = loaded(runner)
    runner.model = Augmented(module=runner.model)
    runner.model.module.head.bias.data += 1
    with pytest.raises(LoadAuditError, match=r'other values \(head.bias\)'):
        hook.before_test(runner)
