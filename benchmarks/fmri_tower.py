"""Measure the cost of the fMRI tower against the image backbone and other forms of attention.

Subject 1's ROI sizes, batch 16, forward and backward, the width of configs/_base_/models/neurofusionnet.py, two
threads, float32. Baselines in this process: Swin-S and ConvNeXt-S at 224 pixels; the literal slice-wise form
(``merge='concat'``) of the same width; full attention (one transformer block without windows). Memory is the growth of
the peak of a process of its own in one step. glibc keeps large blocks, because giving them back to the system costs a
third of a step.

Example:
    python benchmarks/fmri_tower.py --json fmri_tower.json
"""

import argparse
from pathlib import Path

import torch
from measure import exponent, in_own_process, peak_of_step, read_arguments, save, times_in_turns
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmnfn.losses import contrastive_loss, fmri_guided_loss
from mmnfn.models import FMRIEncoder
from mmnfn.models.transformer import TransformerBlock, sliding_plan
from mmnfn.registry import MODELS
from mmnfn.structures import SubjectGeometry

ROOT = Path(__file__).resolve().parents[1]
ROI_SIZES = (4700, 3400, 1100, 3200, 1900, 27600)
BATCH = 16
LENGTHS = (64, 128, 256, 512, 1024, 2048)
VOXELS = (2000, 4000, 8000, 16000, 32000, 64000)


def tower_step(sizes=ROI_SIZES, **changes):
    """Make a function that takes a step of the fMRI tower with both losses, against constant image features."""
    torch.manual_seed(0)
    settings = Config.fromfile(ROOT / 'configs/_base_/models/neurofusionnet.py').model.fmri_encoder
    names = tuple(f'roi{k}' for k in range(len(sizes)))
    settings = {key: value for key, value in settings.items() if key != 'type'}
    encoder = FMRIEncoder(**{**settings, 'roi_names': names, **changes})
    geometry = SubjectGeometry('subj01', names, tuple(sizes), torch.rand(sum(sizes), 3) * 100)
    responses = torch.randn(BATCH, sum(sizes))
    context = torch.randn(BATCH, encoder.out_dims, requires_grad=True)
    rois = torch.randn(BATCH, len(sizes), encoder.out_dims, requires_grad=True)

    def step():
        features = encoder(responses, geometry)
        loss = contrastive_loss(context, features.context, 0.07)
        loss = loss + fmri_guided_loss(rois, features.rois, 0.07, features.present, 'roi+batch')
        loss.backward()

    return step


def backbone_step(name: str):
    """Make a function that takes a step of an image backbone at 224 pixels."""
    init_default_scope('mmpretrain')
    config = Config.fromfile(ROOT / 'configs/nfn' / name)
    backbone = MODELS.build(config.model.backbone)
    backbone.train()  # returns None in MMPretrain
    images = torch.randn(BATCH, 3, 224, 224)

    def step():
        sum(feature.mean() for feature in backbone(images)).backward()

    return step


def attention_step(length: int, windows: bool):
    """Make a function that takes a step of one transformer block over one ROI, with windows or full attention."""
    torch.manual_seed(0)
    block = TransformerBlock(128, 4)
    tokens = torch.randn(BATCH, length, 128, requires_grad=True)
    plan = sliding_plan((length,), 64, 32, tokens.device) if windows else None
    return lambda: block(tokens, windows=plan).square().mean().backward()


def single_roi_step(voxels: int, way: str):
    """Make a function that takes a step of the tower for one ROI, with windows or one window over everything."""
    window = 64 if way == 'windows' else voxels
    return tower_step((voxels,), window_size=window, window_stride=window // 2 if way == 'windows' else window)


def main() -> None:
    """Run everything and print it."""
    args = read_arguments(__doc__, ('--memory', dict(nargs=2, help=argparse.SUPPRESS)), threads=True)
    if args.memory:
        size, way = args.memory
        print(peak_of_step(tower_step(merge=way) if size == 'all' else single_roi_step(int(size), way)))
        return
    ratios = {}
    steps = dict(
        tower=tower_step(),
        slicewise=tower_step(merge='concat'),
        swin_s=backbone_step('pretrain_nsd.py'),
        convnext_s=backbone_step('pretrain_nsd_convnext-s.py'),
    )
    seconds = times_in_turns(steps, repeats=2)
    for name in ('swin_s', 'convnext_s'):
        ratio = ratios[f'tower_vs_{name}'] = seconds['tower'] / seconds[name]
        print(f'tower and losses {seconds["tower"]:.2f} s, {name} {seconds[name]:.2f} s: {ratio:.2f} of it')
    ratios['speedup_vs_slicewise'] = seconds['slicewise'] / seconds['tower']
    used = {merge: in_own_process(__file__, ['--memory', 'all', merge]) for merge in ('overlap', 'concat')}
    ratios['memory_vs_slicewise'] = used['overlap'] / used['concat']
    print(
        f'slice-wise form {seconds["slicewise"]:.2f} s, {used["concat"]:.0f} MB; ours '
        f'{ratios["speedup_vs_slicewise"]:.2f} times as fast with {used["overlap"]:.0f} MB, '
        f'{ratios["memory_vs_slicewise"]:.2f} of it'
    )

    ratios['speedup_vs_full_attention'] = {}
    for length in LENGTHS:
        seconds = times_in_turns({way: attention_step(length, way == 'windows') for way in ('windows', 'full')})
        ratio = ratios['speedup_vs_full_attention'][length] = seconds['full'] / seconds['windows']
        print(f'{length} tokens: windows {1000 * seconds["windows"]:.0f} ms, {ratio:.2f} times as fast as full ones')

    lines = {}
    for way in ('windows', 'full'):
        sizes = VOXELS if way == 'windows' else VOXELS[:-1]  # 4000 tokens of full attention need 6 GB
        seconds = [times_in_turns({way: single_roi_step(size, way)}, 2)[way] for size in sizes]
        megabytes = [in_own_process(__file__, ['--memory', size, way]) for size in sizes]
        lines[way] = exponent(sizes, seconds), exponent(sizes, megabytes)
        print(
            f'{way}, {sizes[0]} to {sizes[-1]} voxels: seconds {[round(s, 3) for s in seconds]}, MB '
            f'{[round(m) for m in megabytes]}; exponents {lines[way][0]:.2f} (time), {lines[way][1]:.2f} (memory)'
        )
    ratios['exponent_time'], ratios['exponent_memory'] = lines['windows']
    ratios['exponent_time_full'], ratios['exponent_memory_full'] = lines['full']
    save(args, ratios)


if __name__ == '__main__':
    main()
