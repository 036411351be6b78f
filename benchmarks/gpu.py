"""Measure speed, memory and exactness of pretraining on a GPU.

No data is needed: images of 224 pixels and responses of subject 1's ROI sizes are random numbers. The lines are
measured in order of importance and saved at once, and none is begun after ``--minutes``:

- the card's rates of matrix products (TFLOP/s) and of copies (TB/s, bytes read and written);
- whole training steps (copy to the device, both towers, losses, clipping, AdamW) of the models of configs/nfn/ in four
  precisions, with 64 images and with as many as fit: images/s and peak memory; shares of the step in which the GPU
  works on ``backbone``, ``tower`` (fMRI) and ``rest`` (neck, losses, optimizer) and in which it is idle
  (``waiting``); FLOP/s of the backbone over the rate of matrix products in that precision (``of_matmul_rate``); and how
  often the processor waits for the GPU (``waits``), with the lines of code (``waits_at``);
- beside them the same backbone in MMPretrain's classifier and in its SimCLR;
- losses and gradients in float32 against those of the CPU, and the loss curve of 50 steps in bf16 against float32;
- a run with NCCL (one process) and GradScaler that is resumed, against the unbroken one;
- the ridge regression of encoding on the GPU against the CPU, plain and banded.

``--device cpu`` measures a machine without a GPU, and ``--tiny`` runs every line small. PyTorch and the wheels of
tools/dev/gpu_bundle.sh are enough.

Example:
    python benchmarks/gpu.py --json gpu.json
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path
from unittest.mock import MagicMock

if importlib.util.find_spec('cv2') is None:  # mmcv and MMPretrain import it; what is measured here does not use it
    sys.modules['cv2'] = MagicMock(__version__='missing')

import numpy as np
import pandas as pd
import torch
from encoding import problem
from fmri_tower import ROI_SIZES, ROOT
from measure import peak_memory
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, FUNCTIONS, init_default_scope
from mmpretrain.structures import DataSample
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mmnfn.engine.launch import Runner, arrange_channels, close_device, prepare_device
from mmnfn.engine.run_config import use_accelerator
from mmnfn.evaluation import fit_encoding_model
from mmnfn.registry import MODELS
from mmnfn.structures import SubjectGeometry
from mmnfn.utils import atomic_write

CONFIGS = {  # full size, and with --tiny
    'Swin-S': ('nfn/pretrain_nsd.py', 'demo/pretrain.py'),
    'ConvNeXt-S': ('nfn/pretrain_nsd_convnext-s.py', 'demo/pretrain_convnext.py'),
}
PRECISIONS = ('bf16', 'TF32', 'float32')


def synthetic_batch(config: Config, size: int, tiny: bool, seed: int = 0) -> dict:
    """Make a batch like a dataloader's, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    sizes = tuple(n // 100 for n in ROI_SIZES) if tiny else ROI_SIZES
    voxels, pixels = sum(sizes), 64 if tiny else 224
    batch = dict(
        inputs=torch.randint(256, (size, 3, pixels, pixels), dtype=torch.uint8, generator=generator),
        responses=torch.randn(size, voxels, generator=generator),
        image_id=torch.arange(size) + size * seed,
        coordinates=torch.rand(voxels, 3, generator=torch.Generator().manual_seed(0)) * 100,
    )
    if torch.cuda.is_available():
        batch = {name: value.pin_memory() for name, value in batch.items()}
    names = tuple(config.model.fmri_encoder.roi_names)
    return dict(batch, geometry=SubjectGeometry('subj01', names, sizes, batch.pop('coordinates')))


@DATASETS.register_module()
class SyntheticBatches(torch.utils.data.Dataset):
    """Provide whole batches to a Runner."""

    def __init__(self, name: str, count: int, size: int, tiny: bool):
        config = Bench('cpu', tiny).config(name)
        self.batches = [synthetic_batch(config, size, tiny, seed) for seed in range(count)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict:
        return self.batches[index]


@FUNCTIONS.register_module()
def only_batch(samples: list) -> dict:
    return samples[0]


class Bench:
    """Hold the device, whether everything is small, and the rows so far."""

    def __init__(self, device: str, tiny: bool):
        self.device, self.tiny, self.on_gpu = device, tiny, device == 'cuda'
        self.batch = 2 if tiny else 64
        self.rows = {}

    def config(self, name: str, **backbone) -> Config:
        config = Config.fromfile(ROOT / 'configs' / CONFIGS[name][self.tiny])
        config.model.backbone.update(backbone)
        return config

    def build(self, model: dict, config: Config, device: str = ''):
        """Build model and optimizer wrapper; equal configs give equal weights and equal random numbers after."""
        torch.manual_seed(0)
        model = MODELS.build(model).to(device or self.device)
        model.train()
        if self.on_gpu and not device:
            arrange_channels(model)
            use_accelerator(config)
        return model, build_optim_wrapper(model, config.optim_wrapper)

    def autocast(self, precision: str):
        return torch.autocast(self.device, torch.bfloat16, enabled=precision.startswith('bf16'))

    def step(self, model, wrapper, batch: dict, precision: str):
        """Make a function that takes a whole training step and returns its loss."""

        def step():
            with self.autocast(precision):
                return model.train_step(batch, wrapper)['loss']

        return step

    def finish(self) -> None:
        """Wait until the GPU has finished."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def mean_seconds(self, step, count: int) -> float:
        self.finish()
        start = time.perf_counter()
        for _ in range(count):
            step()
        self.finish()
        return (time.perf_counter() - start) / count

    def seconds(self, step, budget: float = 2.0) -> float:
        """Average as many calls as take that long, after three for warm-up."""
        if self.tiny:
            return self.mean_seconds(step, 1)
        self.mean_seconds(step, 2)
        return self.mean_seconds(step, min(max(math.ceil(budget / self.mean_seconds(step, 1)), 3), 50))

    def busy(self, step, calls: int = 3) -> float:
        """Measure the seconds for which a call keeps the GPU busy; on the CPU simply its seconds."""
        if not self.on_gpu:
            return self.seconds(step)
        step()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
            self.mean_seconds(step, calls)
        events = [event for event in recorded.events() if event.device_type == DeviceType.CUDA]
        kernels = [event for event in events if not getattr(event, 'is_user_annotation', False)]
        return sum(event.time_range.elapsed_us() for event in kernels) / calls / 1e6


def use_precision(name: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name != 'float32'


def machine(bench: Bench) -> dict:
    """Describe card, driver and software."""
    row = dict(python=platform.python_version(), torch=torch.__version__, cores=os.cpu_count(), device=bench.device)
    if bench.on_gpu:
        card = torch.cuda.get_device_properties(0)
        row.update(card=card.name, memory_gb=card.total_memory / 1e9, cuda=torch.version.cuda)
    if shutil.which('nvidia-smi'):
        command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
        row['driver'] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return row


def rates(bench: Bench) -> dict:
    """Measure TFLOP/s of square matrix products, and TB/s of a copy (bytes read and written)."""
    size, row = 256 if bench.tiny else 8192, {}
    for precision in PRECISIONS:
        use_precision(precision)
        dtype = torch.bfloat16 if precision == 'bf16' else torch.float32
        a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
        row[precision] = 2 * size**3 / bench.seconds(lambda a=a, b=b: a @ b, 0.5) / 1e12
    values = torch.zeros(size**2 * 4, device=bench.device)
    row['copy'] = 2 * values.nbytes / bench.seconds(values.clone, 0.5) / 1e12
    return row


def alone(bench: Bench, model, batch: dict, precision: str, *parts: str) -> list:
    """Make a function for each part of a model that runs it alone, forward and backward, on its inputs of a batch."""
    inputs = {part: [] for part in parts}
    hooks = [
        getattr(model, part).register_forward_pre_hook(
            lambda _, args, kwargs, part=part: inputs[part].append((args, kwargs)), with_kwargs=True
        )
        for part in parts
    ]
    with bench.autocast(precision):
        model(**model.data_preprocessor(batch), mode='loss')
    for hook in hooks:
        hook.remove()

    def call(part):
        with bench.autocast(precision):
            outputs = [output for args, kwargs in inputs[part] for output in getattr(model, part)(*args, **kwargs)]
        sum(output.float().sum() for output in outputs if output.requires_grad).backward()

    return [partial(call, part) for part in parts]


def waits(step):
    """Count how often the processor waits for the GPU in a step, in total and by line of code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        step()
        torch.cuda.set_sync_debug_mode('default')
    places = [f'{Path(w.filename).name}:{w.lineno}' for w in caught if 'synchroniz' in str(w.message)]
    return len(places), dict(Counter(places).most_common())


def training_step(bench: Bench, name: str, precision: str, size: int = 0) -> dict:
    """Measure speed, memory and parts of a step."""
    use_precision(precision)
    size = size or bench.batch
    config = bench.config(name)
    model, wrapper = bench.build(config.model, config)
    (count_backbone,) = alone(bench, model, synthetic_batch(config, 2, bench.tiny), precision, 'backbone')
    with FlopCounterMode(display=False) as counter:
        count_backbone()
    flop = counter.get_total_flops() / 2 * size
    if precision == 'bf16 compiled':
        backend = 'eager' if bench.tiny else 'inductor'
        model.backbone.forward = torch.compile(model.backbone.forward, dynamic=False, backend=backend)
    batch = synthetic_batch(config, size, bench.tiny)
    step = bench.step(model, wrapper, batch, precision)
    row = dict(model=name, precision=precision, batch=size, first_step_s=bench.mean_seconds(step, 1))
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
        row['kept_gb'] = torch.cuda.memory_allocated() / 1e9
    wall = bench.seconds(step)
    row.update(images_per_s=size / wall, step_ms=1e3 * wall)
    row['peak_gb'] = torch.cuda.max_memory_allocated() / 1e9 if bench.on_gpu else peak_memory() / 1e3
    backbone, tower = map(bench.busy, alone(bench, model, batch, precision, 'backbone', 'fmri_encoder'))
    busy = bench.busy(step) if bench.on_gpu else wall
    for part, taken in dict(backbone=backbone, tower=tower, rest=busy - backbone - tower, waiting=wall - busy).items():
        row[part] = taken / wall
    row['of_matmul_rate'] = flop / backbone / 1e12 / bench.rows['rates'][precision.split()[0]]
    if bench.on_gpu:
        row['waits'], row['waits_at'] = waits(step)
    return row


def largest_step(bench: Bench, name: str, precision: str) -> dict:
    """Measure a step with as many images as fit, estimated from the usual batch."""
    usual = bench.rows[f'{name}, {precision}']
    if not bench.on_gpu:
        return training_step(bench, name, precision, 2 * bench.batch)
    for share in (0.94, 0.86, 0.78):
        gc.collect()
        torch.cuda.empty_cache()
        room = share * torch.cuda.mem_get_info()[0] / 1e9 - usual['kept_gb']
        size = int(room / (usual['peak_gb'] - usual['kept_gb']) * usual['batch']) // 16 * 16
        try:
            return training_step(bench, name, precision, size)
        except torch.cuda.OutOfMemoryError:
            pass  # its memory is freed after this block
    raise MemoryError(f'{size} images do not fit')


def against_mmpretrain(bench: Bench, name: str, precision: str) -> dict:
    """Measure images/s of the same backbone in MMPretrain's classifier and SimCLR, and the ratio to ours."""
    use_precision(precision)
    config = bench.config(name)
    images = synthetic_batch(config, bench.batch, bench.tiny)['inputs']
    channels, backbone = config.model.neck.in_channels[-1], dict(config.model.backbone, out_indices=(3,))
    normalise = dict(to_rgb=False, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    classifier = dict(
        type='ImageClassifier',
        data_preprocessor=dict(normalise),
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=channels),
    )
    simclr = dict(
        type='SimCLR',
        data_preprocessor=dict(normalise),
        backbone=backbone,
        neck=dict(type='NonLinearNeck', in_channels=channels, hid_channels=channels, out_channels=128),
        head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.1),
    )
    labels = [DataSample().set_gt_label(k) for k in range(bench.batch)]
    row = {}
    for kind, model, inputs in (('classifier', classifier, images), ('simclr', simclr, [images, images])):
        batch = dict(inputs=inputs, data_samples=labels)
        step = bench.step(*bench.build(model, config), batch, precision)
        row[f'{kind}_images_per_s'] = bench.batch / bench.seconds(step)
        row[f'times_{kind}'] = bench.rows[f'{name}, {precision}']['images_per_s'] / row[f'{kind}_images_per_s']
    return row


def exactness(bench: Bench, name: str) -> dict:
    """Compare losses and gradients in float32 with those of the CPU, as relative differences."""
    use_precision('float32')
    config = bench.config(name, drop_path_rate=0.0)
    batch = synthetic_batch(config, 8, bench.tiny)
    results = []
    for device in ('cpu', bench.device):
        model, _ = bench.build(config.model, config, device)
        losses = model(**model.data_preprocessor(batch), mode='loss')
        model.parse_losses(losses)[0].backward()
        gradients = {key: weight.grad.double().cpu() for key, weight in model.named_parameters()}
        results.append(({key: value.item() for key, value in losses.items() if 'loss' in key}, gradients))
    (losses, gradients), (other_losses, other_gradients) = results
    norms = {key: float(gradient.norm()) for key, gradient in gradients.items()}
    errors = {key: float((gradient - other_gradients[key]).norm()) for key, gradient in gradients.items()}
    total = math.hypot(*norms.values())
    relative = {key: errors[key] / norm for key, norm in norms.items() if norm > 1e-6 * total}
    row = dict(
        losses=max(abs(losses[key] - other_losses[key]) / abs(losses[key]) for key in losses),
        gradient=math.hypot(*errors.values()) / total,
        worst_parameter=max(relative.values()),
        worst=max(relative, key=relative.get),
    )
    return dict(row, within_1e4=max(row['losses'], row['gradient']) <= 1e-4)


def bf16_curve(bench: Bench, name: str) -> dict:
    """Compare the mean loss in bf16 with float32 in ten passes over five batches, as relative differences."""
    config = bench.config(name, drop_path_rate=0.0)
    batches = [synthetic_batch(config, bench.batch, bench.tiny, seed) for seed in range(5)]
    curves = []
    for precision in ('float32', 'bf16'):
        use_precision(precision)
        model, wrapper = bench.build(config.model, config)
        steps = [bench.step(model, wrapper, batch, precision) for batch in batches]
        passes = range(2 if bench.tiny else 10)
        curves.append(np.array([np.mean([step().item() for step in steps]) for _ in passes]))
    apart = np.abs(curves[1] / curves[0] - 1)
    row = dict(first=curves[0][0], last=curves[0][-1], last_bf16=curves[1][-1], largest=apart.max())
    return dict(row, within_1_percent=bool(apart.max() <= 0.01))


def resumed_run(bench: Bench) -> dict:
    """Compare the final weights of a run with NCCL and GradScaler with those of one resumed after its first epoch.

    ``moved`` is how far the weights moved in the second and last epoch.
    """
    weights, row = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ('unbroken', 'resumed'):
            with socket.socket() as free:
                free.bind(('127.0.0.1', 0))
                port = str(free.getsockname()[1])
            os.environ.update(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
            config = bench.config('Swin-S')
            config.merge_from_dict(
                dict(
                    work_dir=f'{folder}/{name}',
                    experiment_name=name,
                    log_level='ERROR',
                    train_cfg=dict(_delete_=True, by_epoch=True, max_epochs=2),
                    default_hooks=dict(checkpoint=dict(interval=1, max_keep_ckpts=2)),
                    optim_wrapper=dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic'),
                )
            )
            config.param_scheduler = []
            config.update(
                {f'{kind}_{part}': None for kind in ('val', 'test') for part in ('dataloader', 'cfg', 'evaluator')}
            )
            data = dict(type='SyntheticBatches', name='Swin-S', count=3, size=bench.batch, tiny=bench.tiny)
            config.train_dataloader = dict(
                batch_size=1,
                num_workers=0,
                dataset=data,
                sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='only_batch'),
            )
            if name == 'resumed':
                config.update(resume=True, load_from=f'{folder}/unbroken/epoch_1.pth')
            prepare_device(config, 'pytorch')
            Runner.from_cfg(config).train()
            row['backend'] = torch.distributed.get_backend()
            close_device()
        for path in ('unbroken/epoch_1', 'unbroken/epoch_2', 'resumed/epoch_2'):
            checkpoint = torch.load(f'{folder}/{path}.pth', map_location='cpu', weights_only=False)
            weights.append(torch.cat([value.double().flatten() for value in checkpoint['state_dict'].values()]))
    row['loss_scale'] = checkpoint['optimizer'].get('loss_scaler', {}).get('scale')
    half, unbroken, resumed = weights
    return dict(row, moved=(half - unbroken).norm().item(), apart=(resumed - unbroken).norm().item())


@lru_cache
def ridge_problem(tiny: bool) -> tuple:
    """Make features and responses of training and test images."""
    return problem(*((200, 64, 300, 50) if tiny else (10_000, 4096, 45_000, 1_000)))


def ridge(bench: Bench, bands: int) -> dict:
    """Measure the metric's ridge on 10,000 images × 45,000 voxels, and on a quarter of both against the CPU."""
    use_precision('float32')
    x, y, x_test, y_test = ridge_problem(bench.tiny)
    sizes = [x.shape[1] // bands] * bands

    def fit(backend, share):
        start = time.perf_counter()
        n, v = (int(share * count) for count in y.shape)
        outcome = fit_encoding_model(
            x[:n], y[:n, :v], x_test, y_test[:, :v], bands=sizes, bootstraps=2, backend=backend
        )
        return time.perf_counter() - start, outcome.r

    backend = 'torch_cuda' if bench.on_gpu else 'numpy'
    whole, r = fit(backend, 1)
    (quarter, r_quarter), (by_cpu, r_cpu) = fit(backend, 0.25), fit('numpy', 0.25)
    row = dict(backend=backend, full_s=whole, mean_r=r.mean(), quarter_s=quarter, quarter_cpu_s=by_cpu)
    return dict(row, times_as_fast=by_cpu / quarter, r_apart=np.abs(r_quarter - r_cpu).max())


def lines() -> dict:
    """List the measurements by name, the most important first."""
    order = [('machine', machine), ('rates', rates)]

    def add(function, precision=None, models=CONFIGS, label='{}'):
        for name in models:
            more = dict(name=name) if precision is None else dict(name=name, precision=precision)
            order.append((label.format(', '.join(more.values())), partial(function, **more)))

    add(training_step, 'bf16')
    add(against_mmpretrain, 'bf16', label='{} against MMPretrain')
    add(exactness, label='{}, GPU against CPU')
    add(training_step, 'TF32')
    add(training_step, 'float32')
    swin, convnext = ([name] for name in CONFIGS)
    add(bf16_curve, models=swin, label='{}, bf16 against float32')
    order.append(('resumed run', resumed_run))
    add(training_step, 'bf16 compiled', swin)
    order.extend([('plain ridge', partial(ridge, bands=1)), ('banded ridge', partial(ridge, bands=2))])
    add(largest_step, 'bf16', label='{}, largest batch')
    add(training_step, 'bf16 compiled', convnext)
    add(bf16_curve, models=convnext, label='{}, bf16 against float32')
    for precision in ('TF32', 'float32', 'bf16 compiled'):
        add(largest_step, precision, label='{}, largest batch')
    return dict(order)


def save(path: Path, content: dict) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2))


def text(value) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def main() -> int:
    """Run everything, print it and save it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, required=True, help='write every line there, as soon as it is measured')
    parser.add_argument('--minutes', type=float, default=6, help='begin no line after that time (default: %(default)s)')
    parser.add_argument('--device', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--tiny', action='store_true', help='everything small')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        print('gpu.py: PyTorch sees no GPU here; --device cpu --tiny runs every line small', file=sys.stderr)
        return 2
    init_default_scope('mmpretrain')
    MMLogger.get_instance('gpu', log_level='ERROR')
    torch.backends.cudnn.benchmark = True
    bench, start, left_out = Bench(args.device, args.tiny), time.perf_counter(), []
    for name, measure in lines().items():
        if time.perf_counter() - start > 60 * args.minutes:
            left_out.append(name)
            continue
        began = time.perf_counter()
        try:
            row = measure(bench)
        except Exception as error:  # the other lines are still worth measuring
            row = dict(error=f'{type(error).__name__}: {error}'[:500])
        row['seconds'] = time.perf_counter() - began
        bench.rows[name] = row
        save(args.json, dict(lines=bench.rows, not_begun=left_out))
        print(f'{name}: ' + ', '.join(f'{key} {text(value)}' for key, value in row.items()), flush=True)
        gc.collect()
        torch._dynamo.reset()
        torch.cuda.empty_cache()
    save(args.json, dict(lines=bench.rows, not_begun=left_out))
    steps = pd.DataFrame([row for row in bench.rows.values() if 'images_per_s' in row])
    if len(steps):
        print(steps.drop(columns=['waits_at', 'seconds'], errors='ignore').to_string(float_format='%.3g', index=False))
    if left_out:
        print(f'Not begun after {args.minutes:g} minutes: {", ".join(left_out)}')
    return int(any('error' in row for row in bench.rows.values()))


if __name__ == '__main__':
    sys.exit(main())
