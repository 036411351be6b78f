"""A model of two layers and a head, and a Runner that trains or tests it on four vectors."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset


class Backbone(BaseModule):
    """Two layers and a buffer; ``forgetful`` has a loader that leaves one tensor out, without a word."""

    def __init__(self, init_cfg=None, forgetful=False):
        super().__init__(init_cfg)
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
        self.register_buffer('scale', torch.ones(1))
        self.forgetful = forgetful

    def init_weights(self):
        before = self.second.bias.detach().clone()
        super().init_weights()
        if self.forgetful:
            self.second.bias.data.copy_(before)

    def forward(self, x):
        return self.second(self.first(x)) * self.scale


class Toy(BaseModel):
    """A backbone and a head."""

    def __init__(self, outputs=1, **backbone):
        super().__init__()
        self.backbone = Backbone(**backbone)
        self.head = nn.Linear(4, outputs)

    def forward(self, inputs, mode='tensor'):
        out = self.head(self.backbone(torch.stack(list(inputs))))
        return dict(loss=out.square().mean()) if mode == 'loss' else [out]


class Numbers(Dataset):
    """Four vectors."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.full((3,), float(index)))


class Count(BaseMetric):
    """Counts batches; keeps what the checkpoint says of its training."""

    def note_training(self, meta):
        self.meta = meta

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(count=len(results))


def make(folder, model, train=True, epochs=1, hooks=(), metric=None, **settings):
    """Make a runner that works in ``folder/work``."""
    data = dict(batch_size=2, dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False))
    if train:
        modes = dict(
            train_dataloader=data,
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        )
    else:
        modes = dict(test_dataloader=data, test_cfg=dict(), test_evaluator=metric or Count())
    return Runner(
        model=model,
        work_dir=str(folder / 'work'),
        custom_hooks=list(hooks),
        experiment_name=f'{folder.name}_{len(list(folder.rglob("*")))}_{train}_{epochs}',
        **{**modes, **settings},
    )
