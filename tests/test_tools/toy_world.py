"""A model, a dataset and a metric of a few numbers, for runs of the command lines; :data:`CONFIG` imports it."""

import os

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn
from torch.utils.data import Dataset

CONFIG = """
custom_imports = dict(imports=['toy_world', 'mmnfn'], allow_failed_imports=False)
model = dict(type='ToyModel')
train_dataloader = dict(
    batch_size=2, num_workers=0, dataset=dict(type='ToyData'), sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = train_dataloader
test_evaluator = dict(type='ToyMetric')
# As a config for GPUs has it: NCCL is the default, and AMP is on.
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='SGD', lr=0.1))
train_cfg = dict(by_epoch=True, max_epochs=1)
test_cfg = dict()
custom_hooks = [dict(type='mmnfn.ExportBackboneHook')]
randomness = dict(seed=0)
"""
SIZE = 8


@DATASETS.register_module()
class ToyData(Dataset):
    """Eight vectors."""

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return dict(inputs=torch.full((3,), float(index)))


@MODELS.register_module()
class ToyModel(BaseModel):
    """y = mean of a linear map; writes the batches of each rank where TOY_LOG says."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.norm = nn.SyncBatchNorm(4, affine=False, track_running_stats=False)  # not on CPUs

    def forward(self, inputs, mode='tensor'):
        inputs = torch.stack(list(inputs))
        if mode == 'loss':
            if 'TOY_LOG' in os.environ:
                state = (type(self.norm).__name__, torch.get_num_threads(), torch.distributed.get_backend())
                with open(os.path.join(os.environ['TOY_LOG'], f'rank{os.environ["RANK"]}.txt'), 'a') as file:
                    print(int(inputs[0, 0]), int(inputs[1, 0]), *state, file=file)
            return dict(loss=self.backbone(inputs).mean())
        return [dict(y=value) for value in self.backbone(inputs).mean(1).tolist()]


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Count and sum of the predictions."""

    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results.extend(sample['y'] for sample in data_samples)

    def compute_metrics(self, results):
        return dict(count=len(results), sum=sum(results))
