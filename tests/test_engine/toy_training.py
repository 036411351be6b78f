"""A NeuroFusionNet of a few thousand weights on random data, trained by tools/train.py in processes that may be killed.

:data:`CONFIG` imports this module. Dropout, stochastic depth, the fusion's masks and (with ``jitter``) a random
transform draw from all of the global generators.
"""

import importlib.util
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from child import free_port
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, MODELS
from torch import nn
from torch.utils.data import Dataset

from mmnfn.structures import SubjectGeometry

ROOT = Path(__file__).resolve().parents[2]
ROIS = ('prf-visualrois', 'streams')
CONFIG = """
custom_imports = dict(imports=['toy_training', 'mmnfn', 'mmpretrain.models'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(
    type='mmnfn.NeuroFusionNet',
    backbone=dict(type='mmengine.ToyBackbone'),
    neck=dict(in_channels=4),
    fmri_encoder=dict(
        roi_names=('prf-visualrois', 'streams'), embed_dims=8, out_dims=8, num_heads=2, kernel_size=8, stride=4,
        position_dims=4, window_size=4, window_stride=2, num_queries=2, drop_rate=0.2, drop_path_rate=0.3),
    contrastive=dict(),
    guidance=dict(negatives='roi+batch'),
    fusion=dict(embed_dims=8, drop_rate=0.2),
)
dataset = dict(type='mmengine.ToyBrains', jitter=True)
train_dataloader = dict(
    batch_size=4, num_workers=0, dataset=dataset,
    sampler=dict(type='DefaultSampler', shuffle=True), batch_sampler=dict(type='mmnfn.SubjectBatchSampler'),
    collate_fn=dict(type='mmnfn.collate_subject_batch'))
val_dataloader = dict(train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmnfn.RetrievalMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=5.0))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=3, convert_to_iter_based=True)]
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='mmnfn.ResumableCheckpointHook', interval=4, by_epoch=False, max_keep_ckpts=-1))
custom_hooks = [
    dict(type='mmnfn.ResumeEpochHook'), dict(type='mmnfn.NonFiniteLossHook'), dict(type='mmengine.ToyHook')]
randomness = dict(seed=0)
"""
# Batches of one process: subject 1 has 10 samples (3 batches), subject 2 has 7 (2 batches).
SAMPLES = (10, 7)


@DATASETS.register_module()
class ToyBrains(Dataset):
    """Images with responses of two subjects; with ``jitter``, of a brightness from NumPy's and Python's generators.

    Args:
        jitter: Whether the brightness is random.
        trials: Every second sample is another response to the image of the sample before.
        spoil: Index of a sample whose responses are NaN.
    """

    def __init__(self, jitter=False, trials=False, spoil=None):
        self.jitter, self.trials, self.spoil = jitter, trials, spoil
        generator = torch.Generator().manual_seed(0)
        self.geometries = [
            SubjectGeometry(f'subj0{k + 1}', ROIS, sizes, 30 * torch.randn(sum(sizes), 3, generator=generator))
            for k, sizes in enumerate(((20, 12), (16, 9)))
        ]
        self.owner = np.repeat((0, 1), SAMPLES)
        self.images = torch.randint(0, 256, (len(self.owner), 3, 8, 8), dtype=torch.uint8, generator=generator)
        self.responses = [
            torch.randn(len(self.geometries[k].coordinates), generator=generator) for k in self.owner.tolist()
        ]

    def __len__(self):
        return len(self.owner)

    def subject_indices(self):
        return {geometry.subject: np.flatnonzero(self.owner == k) for k, geometry in enumerate(self.geometries)}

    def __getitem__(self, index):
        responses, geometry = self.responses[index], self.geometries[self.owner[index]]
        image_id = int(index if index < SAMPLES[0] else index - SAMPLES[0]) // (2 if self.trials else 1)
        inputs = self.images[image_id]
        if self.jitter:
            inputs = (inputs * (1 - 0.3 * np.random.rand()) + random.gauss(0, 5)).clamp(0, 255).to(torch.uint8)
        if index == self.spoil:
            responses = responses * float('nan')
        return dict(
            inputs=inputs,
            responses=responses,
            image_id=image_id,
            split='test',
            geometry=geometry,
            noise_ceiling=torch.full(responses.shape, 50.0),
            ncsnr=torch.full(responses.shape, 0.6),
        )


@MODELS.register_module()
class ToyBackbone(nn.Sequential):
    """A convolution and dropout."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(0.3))


@HOOKS.register_module()
class ToyHook(Hook):
    """Writes what each rank trained on, and does mischief when told so.

    Environment: TOY_KILL, iteration before which the process kills itself; TOY_DIE_SAVING, iteration after which it is
    killed in the middle of writing a checkpoint; TOY_SPOIL, iteration whose loss_fus is infinite on rank 1;
    TOY_SPOIL_GRADIENT, iteration in which a gradient is infinite, and the losses are not.
    """

    priority = 'HIGHEST'

    def before_train(self, runner):
        if runner.iter == 0:  # so that each rank has random numbers of its own
            torch.manual_seed(get_rank())

        def spoil(model, inputs, losses):
            if str(runner.iter) == os.environ['TOY_SPOIL'] and isinstance(losses, dict):
                return dict(losses, loss_fus=losses['loss_fus'] / 0)

        def spoil_gradient(gradient):
            return gradient / 0 if str(runner.iter) == os.environ['TOY_SPOIL_GRADIENT'] else gradient

        if 'TOY_SPOIL_GRADIENT' in os.environ:
            runner.model.backbone[0].bias.register_hook(spoil_gradient)
        if get_rank() == 1 and 'TOY_SPOIL' in os.environ:
            runner.model.module.register_forward_hook(spoil)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if str(runner.iter) == os.environ.get('TOY_KILL'):
            os.kill(os.getpid(), signal.SIGKILL)
        with open(Path(runner.work_dir) / f'rank{os.environ.get("RANK", 0)}.txt', 'a') as file:
            print(runner.iter, data_batch['geometry'].subject, data_batch['image_id'].tolist(), file=file)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if str(runner.iter) == os.environ.get('TOY_DIE_SAVING'):
            # No file may grow beyond this size: the kernel ends the process in the middle of the next checkpoint.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))


@pytest.fixture(scope='module', autouse=True)
def without_gpu():
    """Children start from a server process that takes over this environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CUDA_VISIBLE_DEVICES', '')
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.setenv('PYTHONPATH', f'{ROOT}:{os.environ.get("PYTHONPATH", "")}')
        yield


def body(log, name, args, environment):
    """Run a script of tools/ as one process of a run."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    with open(log, 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.exit(module.main(args))


def run(folder, name, *args, processes=1, timeout=600, **environment):
    """Run a command of tools/ in fresh processes on CPUs.

    When one fails, the others are killed, as launchers do.

    Returns:
        Exit codes and the text that each process printed.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(
        ['mmpretrain.models', 'mmnfn.models', 'mmnfn.datasets', 'mmnfn.evaluation', 'mmnfn.engine']
    )
    port = free_port()
    logs = [Path(folder) / f'output{rank}.txt' for rank in range(processes)]
    children = []
    for rank, log in enumerate(logs):
        own = dict(environment)
        if processes > 1:
            own.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, LOCAL_WORLD_SIZE=processes)
            own.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        launcher = ['--launcher', 'pytorch'] if processes > 1 else []
        own = {key: str(value) for key, value in own.items()}
        children.append(context.Process(target=body, args=(log, name, [*map(str, args), *launcher], own)))
    for child in children:
        child.start()
    deadline = time.monotonic() + timeout
    while any(child.is_alive() for child in children):
        if any(child.exitcode for child in children) or time.monotonic() > deadline:
            for child in children:
                child.join(5)
                child.kill()
        time.sleep(0.1)
    return [child.exitcode for child in children], [log.read_text() for log in logs]


def train(work, *options, processes=1, resume=None, config=CONFIG, **environment):
    """Run tools/train.py on the toy model with ``--cfg-options``; return exit codes and outputs."""
    work.mkdir(exist_ok=True)
    path = work.parent / 'toy.py'
    path.write_text(config)
    args = [path, '--work-dir', work, *(['--resume', *resume] if resume is not None else [])]
    args += ['--cfg-options', *options] if options else []
    return run(work, 'train', *args, processes=processes, **environment)


def load(path):
    """Read a checkpoint."""
    return torch.load(path, map_location='cpu', weights_only=False)
