"""Measure how many images a second a whole pretraining step takes, against SimCLR of MMPretrain.

Forward, backward and AdamW step of the model of configs/nfn/ with subject 1's ROI sizes, against MMPretrain's SimCLR
(two views of each image) with the same backbone, image size, batch and optimizer, in this process, two threads,
float32. Beside it the same step with L_enc as well: ``encoding_share`` is the share of time that it adds.

Example:
    python benchmarks/pretrain_step.py --json pretrain_step.json
"""

import torch
from fmri_tower import ROI_SIZES, ROOT
from measure import read_arguments, save, times_in_turns
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
    channels = config.model.neck.in_channels
    return dict(
        type='SimCLR',
        backbone=config.model.backbone,
        neck=dict(type='NonLinearNeck', in_channels=channels, hid_channels=channels, out_channels=128),
        head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.1),
    )


def steps(config: Config, batch: int):
    """Make the steps of NeuroFusionNet and of SimCLR with the same backbone."""
    init_default_scope('mmpretrain')
    images = torch.randn(batch, 3, 224, 224)
    model = MODELS.build(config.model).train()
    names = tuple(config.model.fmri_encoder.roi_names)
    geometry = SubjectGeometry('subj01', names, ROI_SIZES, torch.rand(sum(ROI_SIZES), 3) * 100)
    responses, image_id = torch.randn(batch, sum(ROI_SIZES)), torch.arange(batch)
    other = MODELS.build(simclr(config)).train()
    channels = config.model.neck.in_channels
    stages = dict(out_indices=(1, 2, 3))
    guided = MODELS.build(
        dict(
            config.model,
            backbone=dict(config.model.backbone, **stages),
            encoding=dict(in_channels=(channels // 4, channels // 2, channels)),
        )
    ).train()
    return {
        'encoding': optimizer_step(guided, lambda: guided(images, responses, image_id, geometry, mode='loss')),
        'ours': optimizer_step(model, lambda: model(images, responses, image_id, geometry, mode='loss')),
        'simclr': optimizer_step(other, lambda: other.loss([images, images.flip(3)], data_samples=None)),
    }


def main() -> None:
    """Run everything and print it."""
    args = read_arguments(__doc__, ('--batch', dict(type=int, default=16)), threads=True)
    ratios, shares = {}, {}
    for name, file in CONFIGS.items():
        seconds = times_in_turns(steps(Config.fromfile(ROOT / 'configs/nfn' / file), args.batch), repeats=2)
        ratios[name] = seconds['simclr'] / seconds['ours']
        shares[name] = seconds['encoding'] / seconds['ours'] - 1
        print(
            f'{name}: {args.batch / seconds["ours"]:.2f} images/s, SimCLR {args.batch / seconds["simclr"]:.2f}: '
            f'{ratios[name]:.2f} times as many; with L_enc {100 * shares[name]:+.1f} % time'
        )
    result = dict(images_vs_simclr=min(ratios.values()), by_backbone=ratios, encoding_share=max(shares.values()))
    save(args, result)


if __name__ == '__main__':
    main()
