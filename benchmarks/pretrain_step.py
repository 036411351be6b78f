"""Measure how many images a second a whole pretraining step takes, against SimCLR of MMPretrain.

Forward, backward and AdamW step of the model of configs/nfn/ with subject 1's ROI sizes, against MMPretrain's SimCLR
(two views of each image) with the same backbone, image size, batch and optimizer, in this process, two threads,
float32. Beside it the same step without L_enc: ``encoding_share`` is the share of time that L_enc adds, and
``encoding_mb`` the peak memory that it adds in a process of its own.

Example:
    python benchmarks/pretrain_step.py --json pretrain_step.json
"""

import argparse

import torch
from fmri_tower import ROI_SIZES, ROOT
from measure import in_own_process, peak_of_step, read_arguments, save, times_in_turns
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmnfn.registry import MODELS
from mmnfn.structures import SubjectGeometry

CONFIGS = {'Swin-S': 'pretrain_nsd.py', 'ConvNeXt-S': 'pretrain_nsd_convnext-s.py'}


def optimizer_step(model, forward):
    """Make a function that takes a whole step of a model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        losses = forward()
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()

    return step


def simclr(config: Config) -> dict:
    """Configure MMPretrain's SimCLR with the same backbone."""
    channels = config.model.neck.in_channels[-1]
    return dict(
        type='SimCLR',
        backbone=dict(config.model.backbone, out_indices=(3,)),
        neck=dict(type='NonLinearNeck', in_channels=channels, hid_channels=channels, out_channels=128),
        head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.1),
    )


def ours(config: Config, batch: int):
    """Make the step of NeuroFusionNet."""
    init_default_scope('mmpretrain')
    model = MODELS.build(config.model).train()
    names = tuple(config.model.fmri_encoder.roi_names)
    geometry = SubjectGeometry('subj01', names, ROI_SIZES, torch.rand(sum(ROI_SIZES), 3) * 100)
    images, responses = torch.randn(batch, 3, 224, 224), torch.randn(batch, sum(ROI_SIZES))
    return optimizer_step(model, lambda: model(images, responses, torch.arange(batch), geometry, mode='loss'))


def without_encoding(config: Config) -> Config:
    """Leave L_enc out of a config."""
    config.model.encoding = None
    return config


def steps(file: str, batch: int):
    """Make the steps of NeuroFusionNet, with and without L_enc, and of SimCLR with the same backbone."""
    config = Config.fromfile(file)
    images = torch.randn(batch, 3, 224, 224)
    mine = ours(config, batch)
    other = MODELS.build(simclr(config)).train()
    return {
        'ours': mine,
        'without': ours(without_encoding(config), batch),
        'simclr': optimizer_step(other, lambda: other.loss([images, images.flip(3)], data_samples=None)),
    }


def main() -> None:
    """Run everything and print it."""
    args = read_arguments(
        __doc__,
        ('--batch', dict(type=int, default=16)),
        ('--memory', dict(help=argparse.SUPPRESS)),
        threads=True,
    )
    file = ROOT / 'configs/nfn' / CONFIGS['Swin-S']
    if args.memory:
        config = Config.fromfile(file)
        step = ours(config if args.memory == 'ours' else without_encoding(config), args.batch)
        print(peak_of_step(step))
        return
    ratios, shares = {}, {}
    for name, config in CONFIGS.items():
        seconds = times_in_turns(steps(ROOT / 'configs/nfn' / config, args.batch), repeats=2)
        ratios[name] = seconds['simclr'] / seconds['ours']
        shares[name] = seconds['ours'] / seconds['without'] - 1
        print(
            f'{name}: {args.batch / seconds["ours"]:.2f} images/s, SimCLR {args.batch / seconds["simclr"]:.2f}: '
            f'{ratios[name]:.2f} times as many; L_enc adds {100 * shares[name]:.1f} % time'
        )
    peaks = {kind: in_own_process(__file__, ['--memory', kind, '--batch', args.batch]) for kind in ('ours', 'without')}
    print(f'Swin-S, peak of a step: {peaks["ours"]:.0f} MB, without L_enc {peaks["without"]:.0f} MB')
    result = dict(images_vs_simclr=min(ratios.values()), by_backbone=ratios)
    save(args, dict(result, encoding_share=max(shares.values()), encoding_mb=peaks['ours'] - peaks['without']))


if __name__ == '__main__':
    main()
