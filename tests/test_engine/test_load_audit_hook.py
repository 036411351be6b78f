"""The hook stops a run before it trains or tests with weights that are not those of its checkpoint."""

import os
from contextlib import nullcontext

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel, BaseModule, BaseTTAModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmnfn.engine import LoadAuditHook
from mmnfn.engine.load_audit import LoadAuditError


class Backbone(BaseModule):
    """Two layers; ``forgetful`` has a loader that leaves one tensor out, without a word."""

    def __init__(self, init_cfg=None, forgetful=False):
        super().__init__(init_cfg)
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
        self.forgetful = forgetful

    def init_weights(self):
        before = self.second.bias.detach().clone()
        super().init_weights()
        if self.forgetful:
            self.second.bias.data.copy_(before)

    def forward(self, x):
        return self.second(self.first(x))


class Toy(BaseModel):
    """A backbone and a head."""

    def __init__(self, outputs=1, **backbone):
        super().__init__()
        self.backbone = Backbone(**backbone)
        self.head = nn.Linear(4, outputs)

    def forward(self, inputs, mode='tensor'):
        out = self.head(self.backbone(torch.stack(list(inputs))))
        return dict(loss=out.square().mean()) if mode == 'loss' else [out]


class Augmented(BaseTTAModel):
    """Test-time augmentation."""

    def merge_preds(self, data_samples_list):
        return data_samples_list


class Numbers(Dataset):
    """Four vectors."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.full((3,), float(index)))


class Nothing(BaseMetric):
    """A metric."""

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(count=len(results))


def loader():
    return dict(batch_size=2, dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False))


def make(folder, model, train=True, epochs=1, hooks=(), metric=None, **settings):
    modes = dict(train_dataloader=loader(), train_cfg=dict(by_epoch=True, max_epochs=epochs)) if train else {}
    if train:
        modes['optim_wrapper'] = dict(optimizer=dict(type='SGD', lr=0.1))
    else:
        modes.update(test_dataloader=loader(), test_cfg=dict(), test_evaluator=metric or Nothing())
    return Runner(
        model=model,
        work_dir=str(folder / 'work'),
        custom_hooks=[dict(type='mmnfn.LoadAuditHook'), *hooks],
        experiment_name=f'{folder.name}_{len(os.listdir(folder))}_{train}_{epochs}',
        **modes,
        **settings,
    )


def loaded(runner):
    """The hook of a runner whose checkpoint has just been loaded."""
    runner.call_hook('before_run')
    runner.load_or_resume()
    return next(hook for hook in runner.hooks if isinstance(hook, LoadAuditHook))


def log(folder):
    return '\n'.join(path.read_text() for path in (folder / 'work').glob('*/*.log'))


@pytest.fixture()
def export(tmp_path):
    """Path of an export of other weights, and its state dict."""
    torch.manual_seed(5)
    state = {f'backbone.{key}': torch.rand_like(value) for key, value in Backbone().state_dict().items()}
    path = str(tmp_path / 'backbone.pth')
    torch.save(dict(state_dict=state, meta={}), path)
    return path, state


def init_cfg(path, **extra):
    return dict(type='Pretrained', checkpoint=path, **extra)


def test_a_full_load_trains_and_is_in_the_log(tmp_path, export):
    make(tmp_path, Toy(init_cfg=init_cfg(export[0], prefix='backbone.'))).train()
    text = log(tmp_path)
    assert 'second.bias    <- backbone.second.bias    <- (4,)' in text
    assert f'backbone: 4 of 4 tensors loaded from {export[0]}' in text
    assert (tmp_path / 'work/epoch_1.pth').exists()


def test_a_wrong_prefix_ends_the_run_before_it_trains(tmp_path, export):
    with pytest.raises(LoadAuditError, match=r"Give init_cfg.prefix='backbone.'"):
        make(tmp_path, Toy(init_cfg=init_cfg(export[0]))).train()
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_a_loader_that_leaves_weights_out_is_seen_by_their_values(tmp_path, export):
    model = Toy(init_cfg=init_cfg(export[0], prefix='backbone.'), forgetful=True)
    with pytest.raises(LoadAuditError, match=r'has 1 tensors that fit.*other values \(second.bias\)'):
        make(tmp_path, model).train()
    assert not list((tmp_path / 'work').glob('*.pth')) and 'not loaded' in log(tmp_path)


class Command:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('way', ['init_cfg', 'load_from', 'resume', 'auto', 'test'])
def test_code_in_a_checkpoint_is_not_run(tmp_path, export, way):
    trace, path = str(tmp_path / 'trace'), str(tmp_path / 'evil.pth')
    torch.save(dict(state_dict=export[1], meta={}, x=Command(trace)), path)
    settings = dict(
        init_cfg=dict(model=Toy(init_cfg=init_cfg(path, prefix='backbone.'))),
        load_from=dict(model=Toy(), load_from=path),
        resume=dict(model=Toy(), load_from=path, resume=True),
        auto=dict(model=Toy(), resume=True),
        test=dict(model=Toy(), load_from=path, train=False),
    )[way]
    runner = make(tmp_path, **settings)
    (tmp_path / 'work/last_checkpoint').write_text(path)
    with pytest.raises(LoadAuditError, match='evil.pth would import posix.mkdir'):
        runner.test() if way == 'test' else runner.train()
    assert not os.path.exists(trace)


def test_load_from_needs_the_backbone_and_leaves_the_rest_free(tmp_path, export):
    make(tmp_path, Toy(outputs=7), load_from=export[0]).train()
    assert f'backbone: 4 of 4 tensors loaded from {export[0]}' in log(tmp_path)
    path = str(tmp_path / 'less.pth')
    torch.save({key: value for key, value in export[1].items() if 'second' not in key}, path)
    with pytest.raises(LoadAuditError, match=r'it lacks 2 tensors \(backbone.second.weight, backbone.second.bias\)'):
        make(tmp_path, Toy(), load_from=path).train()


def test_load_from_does_not_go_through_the_backbones_own_loader(tmp_path):
    """A whole MMDetection checkpoint fits, whatever convert_weights says: it is for files of Microsoft's alone."""
    pytest.importorskip('mmdet')
    from mmdet.models import SwinTransformer

    sizes = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=2, pretrain_img_size=32)
    whole = Toy()
    whole.backbone = SwinTransformer(**sizes)
    path = str(tmp_path / 'whole.pth')
    torch.save(dict(state_dict=whole.state_dict()), path)
    for change in (0, 1):
        model = Toy()
        model.backbone = SwinTransformer(**sizes, convert_weights=True)
        runner = make(tmp_path, model, load_from=path)
        hook = loaded(runner)
        model.backbone.norm3.weight.data += change
        wrong = pytest.raises(LoadAuditError, match=r'other values \(backbone.norm3.weight\)')
        with wrong if change else nullcontext():
            hook.before_train(runner)


def test_a_resumed_run_is_not_held_to_what_it_once_started_from(tmp_path, export):
    make(tmp_path, Toy(init_cfg=init_cfg(export[0], prefix='backbone.'))).train()
    runner = make(tmp_path, Toy(init_cfg=init_cfg(export[0], prefix='backbone.')), epochs=2, resume=True)
    runner.train()
    assert runner.epoch == 2 and (tmp_path / 'work/epoch_2.pth').exists()


def test_a_test_needs_the_whole_model(tmp_path, export):
    with pytest.raises(LoadAuditError, match=r'it lacks 2 tensors \(head.weight, head.bias\)'):
        make(tmp_path, Toy(), train=False, load_from=export[0]).test()
    whole = str(tmp_path / 'whole.pth')
    torch.save(dict(state_dict=Toy().state_dict()), whole)
    # what training would start from does not matter any more
    model = Toy(init_cfg=init_cfg('nowhere.pth', prefix='backbone.'))
    assert make(tmp_path, model, train=False, load_from=whole).test() == dict(count=2)
    assert 'model: 6 of 6 tensors loaded from' in log(tmp_path)


def test_a_checkpoint_of_classes_in_another_order_is_not_tested(tmp_path, monkeypatch):
    path = str(tmp_path / 'whole.pth')
    torch.save(dict(state_dict=Toy().state_dict(), meta=dict(dataset_meta=dict(classes=('cat', 'dog')))), path)
    monkeypatch.setattr(Numbers, 'metainfo', dict(classes=['cat', 'dog']), raising=False)
    assert make(tmp_path, Toy(), train=False, load_from=path).test() == dict(count=2)
    monkeypatch.setattr(Numbers, 'metainfo', dict(classes=['dog', 'cat']))
    with pytest.raises(LoadAuditError, match="Label 0 is 'cat' by .*whole.pth.* and 'dog' by the dataset"):
        make(tmp_path, Toy(), train=False, load_from=path).test()


class Said(Nothing):
    """A metric that asks what the checkpoint says."""

    def note_training(self, meta):
        self.meta = meta


def test_metrics_get_the_metadata_of_the_tested_checkpoint(tmp_path):
    path = str(tmp_path / 'whole.pth')
    torch.save(dict(state_dict=Toy().state_dict(), meta=dict(subjects=[1, 2])), path)
    metric = Said()
    make(tmp_path, Toy(), train=False, load_from=path, metric=[metric]).test()
    assert metric.meta == dict(subjects=[1, 2])


@pytest.mark.parametrize('permuted', [None, 3])
def test_a_control_is_not_tested_as_what_it_is_no_model_of(tmp_path, permuted):
    """The checkpoint of a training with permuted ROIs, with the config of the main one."""
    trained = f"train_dataloader = dict(dataset=dict(type='x', subjects=[1], permute_rois={permuted}))"
    path = str(tmp_path / 'whole.pth')
    torch.save(dict(state_dict=Toy().state_dict(), meta=dict(cfg=trained)), path)
    data = dict(dataset=dict(type='x', subjects=[1]))
    runner = make(tmp_path, Toy(), train=False, load_from=path)
    runner.cfg.update(train_dataloader=data, test_dataloader=data)
    if permuted is None:
        assert runner.test() == dict(count=2)
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
    assert f'model: 6 of 6 tensors loaded from {path}' in log(tmp_path)
    make(tmp_path, Toy(), epochs=2, load_from=path, hooks=hooks).train()
    assert f'backbone: 4 of 4 tensors loaded from {path}' in log(tmp_path)
    runner = make(tmp_path, Toy(), train=False, load_from=path, hooks=hooks)
    hook = loaded(runner)
    ema = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
    with torch.no_grad():
        ema.ema_model.module.head.bias.add_(1)
    with pytest.raises(LoadAuditError, match=r'other values \(head.bias\)'):
        hook.before_test(runner)


def test_the_model_inside_test_time_augmentation_is_audited(tmp_path):
    whole = str(tmp_path / 'whole.pth')
    torch.save(dict(state_dict=Toy().state_dict()), whole)
    runner = make(tmp_path, Toy(), train=False, load_from=whole)
    hook = loaded(runner)
    runner.model = Augmented(module=runner.model)
    runner.model.module.head.bias.data += 1
    with pytest.raises(LoadAuditError, match=r'other values \(head.bias\)'):
        hook.before_test(runner)


def test_weights_that_are_no_numbers_are_neither_tested_nor_transferred_nor_resumed(tmp_path):
    make(tmp_path, Toy()).train()
    path = str(tmp_path / 'work/epoch_1.pth')
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['state_dict']['backbone.first.bias'][2] = float('nan')
    torch.save(checkpoint, path)
    for model, settings in (
        (Toy(), dict(train=False, load_from=path)),
        (Toy(init_cfg=init_cfg(path, prefix='backbone.')), {}),
        (Toy(), dict(load_from=path)),
        (Toy(), dict(load_from=path, resume=True, epochs=2)),
    ):
        runner = make(tmp_path, model, **settings)
        with pytest.raises(LoadAuditError, match='NaN or infinite numbers in 1 of 6 tensors, backbone.first.bias'):
            runner.train() if settings.get('train', True) else runner.test()
