"""The figure at the end of ``make demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.gridspec import GridSpecFromSubplotSpec

from mmnfn.apis import get_model
from mmnfn.evaluation.dump import read_predictions
from mmnfn.nsd import StimulusImages
from mmnfn.utils import atomic_write

from .image_maps import draw_overlay, roi_maps

COLOURS = dict(random='#9aa3ad', shuffled='#d9a441', nfn='#2f6f9f')
LABELS = dict(random='random weights', shuffled='shuffled brains', nfn='NeuroFusionNet')


def _draw_retrieval(figure, spec, samples: List[dict], images: StimulusImages, rows: int = 4, picks: int = 4) -> None:
    """What a response was to, and the pictures that the response alone finds among the test images of the subject."""
    subject = samples[0]['subject']
    own = [s for s in samples if s['subject'] == subject]
    image, fmri = (np.stack([np.asarray(s[f'{kind}_embedding']) for s in own]) for kind in ('image', 'fmri'))
    order = np.argsort(-fmri @ image.T, axis=1)
    grid = GridSpecFromSubplotSpec(rows, picks + 1, spec, wspace=0.08, hspace=0.12)
    chosen = np.linspace(0, len(own) - 1, rows).astype(int)
    for row, query in enumerate(chosen):
        for column, pick in enumerate([query, *order[query, :picks]]):
            axes = figure.add_subplot(grid[row, column])
            draw_overlay(axes, images[int(own[pick]['image_id'])])
            if column and pick == query:
                for spine in axes.spines.values():
                    spine.set(visible=True, color='#2e9e5b', linewidth=3.5)
            if row == 0:
                axes.set_title('seen' if column == 0 else f'found {column}', fontsize=9)


def _draw_maps(figure, spec, config: str, checkpoint: Path, pictures: List[np.ndarray]) -> None:
    """The learned spatial pooling of the category-selective ROIs."""
    maps, names = roi_maps(get_model(config, checkpoint), pictures)
    shown = [name for name in names if name.startswith('floc-')]
    grid = GridSpecFromSubplotSpec(len(pictures), len(shown) + 1, spec, wspace=0.08, hspace=0.12)
    for row, picture in enumerate(pictures):
        for column, name in enumerate(['image', *shown]):
            axes = figure.add_subplot(grid[row, column])
            heat = maps[row, names.index(name)] if column else None
            draw_overlay(axes, picture, heat)
            if row == 0:
                axes.set_title(name, fontsize=9)


def _bars(axes, groups: Sequence[str], values: Dict[str, List[float]], errors=None, fmt='{:.2f}', rotation=0) -> None:
    width = 0.8 / len(values)
    for k, (init, heights) in enumerate(values.items()):
        x = np.arange(len(groups)) + (k - (len(values) - 1) / 2) * width
        bars = axes.bar(
            x,
            heights,
            width * 0.92,
            color=COLOURS[init],
            label=LABELS[init],
            yerr=None if errors is None else errors[init],
            error_kw=dict(lw=1),
        )
        if fmt:
            axes.bar_label(bars, [fmt.format(h) for h in heights], fontsize=7.5, padding=2)
    axes.set_xticks(
        np.arange(len(groups)), groups, fontsize=8.5, rotation=rotation, ha='right' if rotation else 'center'
    )
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(axis='y', labelsize=8)
    axes.margins(y=0.15)


def draw_demo_figure(out: Path, summary: dict, config: str, checkpoint: Path, predictions: Path, images: Path) -> None:
    """Draw retrieval examples, ROI maps and the comparison of initialisations.

    Args:
        out: PNG file to write.
        summary: The content of ``summary.json``.
        config: Config of the pretrained model.
        checkpoint: Its training checkpoint.
        predictions: Pickle of its predictions on the test images (``tools/test.py --dump``).
        images: Image store.
    """
    samples = read_predictions(predictions)
    store = StimulusImages(images)
    last_subject = max(s['subject'] for s in samples)
    pictures = [store[int(s['image_id'])] for s in samples if s['subject'] == last_subject][2:60:14]

    figure = plt.figure(figsize=(13, 9.4), layout=None)
    grid = figure.add_gridspec(
        2, 6, height_ratios=(1.75, 1), left=0.05, right=0.985, top=0.9, bottom=0.1, hspace=0.28, wspace=0.5
    )
    _draw_retrieval(figure, grid[0, :3], samples, store)
    _draw_maps(figure, grid[0, 3:], config, checkpoint, pictures[:4])
    top1, chance = summary['retrieval_top1'], summary['retrieval_chance']
    figure.text(
        0.05, 0.955, f'Pictures found by the brain response alone (top-1 {top1:.2f}, chance {chance:.3f})', fontsize=12
    )
    figure.text(0.53, 0.955, 'Where the ROI features of the image tower look', fontsize=12)

    inits = list(COLOURS)
    axes = figure.add_subplot(grid[1, 0])
    _bars(
        axes,
        ['all voxels'],
        {i: [summary['pcc'][i]] for i in inits},
        {i: [summary['pcc_standard_error'][i]] for i in inits},
    )
    axes.set_title('PCC, held-out subject\n(raw Pearson r)', fontsize=10)
    axes = figure.add_subplot(grid[1, 1:4])
    rois = list(summary['pcc_by_roi']['nfn'])
    _bars(axes, rois, {i: [summary['pcc_by_roi'][i][r] for r in rois] for i in inits}, fmt='')
    axes.set_title('PCC by ROI', fontsize=10)
    axes.legend(fontsize=8.5, frameon=False, ncols=3, loc='upper right')
    axes.set_ylim(top=1.2 * axes.get_ylim()[1])
    axes = figure.add_subplot(grid[1, 4:])
    values = {i: [summary[name][i] for name in ('APbox', 'APsegm', 'mIoU')] for i in inits}
    _bars(axes, ['APbox', 'APsegm', 'mIoU'], values, fmt='{:.1f}')
    axes.set_title('Mask R-CNN and UPerNet, %', fontsize=10)
    figure.text(
        0.05,
        0.02,
        'Simulated world, micro Swin, one training run per bar; no result of real brains.',
        fontsize=8.5,
        color='#555555',
    )
    with atomic_write(out) as temporary:
        figure.savefig(temporary, dpi=130, format=out.suffix[1:])
    plt.close(figure)
