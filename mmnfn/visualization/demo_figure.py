"""The metrics of ``make demo`` and the figure at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np
from matplotlib.figure import Figure

from mmnfn.evaluation.dump import read_predictions
from mmnfn.evaluation.localization import CategoryMasks, localization
from mmnfn.experiments.study import EMBEDDINGS, Study, read_json
from mmnfn.nsd import ROI_CLASSES, StimulusImages
from mmnfn.utils import atomic_write

from .image_maps import draw_overlay

ROWS = dict(random='random weights', shuffled='shuffled brains', nfn='NeuroFusionNet')
"""Rows of the study, with what the figure calls them."""
COLOURS = dict(random='#9aa3ad', shuffled='#d9a441', nfn='#2f6f9f')
METRICS = dict(
    APbox=('detect', 'coco/bbox_mAP', 100), APsegm=('detect', 'coco/segm_mAP', 100), mIoU=('segment', 'mIoU', 1)
)
"""Metric → task, its name there, and the factor that makes it percent."""
CATEGORIES = {'floc-faces': ('face',), 'floc-bodies': ('body',), 'floc-words': ('word',)}
"""ROIs whose maps are drawn, with their categories; those of places stand for the whole scene."""
SEED_STD = dict(APbox=0.5, APsegm=0.4, mIoU=0.8)
"""Std over three seeds, in percent, of the same recipes after an earlier pretraining."""


def summarize(study: Study, seconds: Mapping[str, float]) -> Dict[str, Any]:
    """Collect the metrics of the demo's study.

    Args:
        study: The study, all of whose jobs are done.
        seconds: Time of each command before it.

    Returns:
        ``retrieval_top1`` and ``retrieval_chance`` (fractions); by row ``pcc`` (raw Pearson r, held-out subject),
        ``pcc_standard_error``, ``pcc_normalized`` (r over the square root of the noise ceiling), ``pcc_by_roi``, and
        ``APbox``, ``APsegm`` and ``mIoU`` in percent; ``seconds``.
    """
    found: Dict[str, Dict[str, dict]] = {row: {} for row in ROWS}
    seconds = dict(seconds)
    for job in study.jobs:
        row, task = job.labels['row'], job.labels['task']
        metrics = job.folder / 'metrics.json'
        found[row][task] = read_json(metrics) if metrics.is_file() else {}
        titles = [f'{task} {row} train', f'{task} {row} test'] if len(job.commands) == 2 else [f'{task} {row}']
        if task == 'pretrain':
            titles = ['random weights'] if row == 'random' else [f'pretrain {row}', f'retrieval {row}']
        seconds.update(zip(titles, (job.record() or {})['seconds']))
    seconds['retrieval'] = seconds.pop('retrieval nfn')
    retrieval = found['nfn']['pretrain']
    summary: Dict[str, Any] = dict(
        retrieval_top1=retrieval['retrieval/image_to_brain_top1'], retrieval_chance=retrieval['retrieval/chance']
    )
    for name, key in (('pcc', 'pcc'), ('pcc_standard_error', 'pcc_se'), ('pcc_normalized', 'pcc_normalized')):
        summary[name] = {row: found[row]['encode'][f'encoding/{key}'] for row in ROWS}
    prefix = 'encoding/pcc_roi_'
    summary['pcc_by_roi'] = {
        row: {
            name[len(prefix) :]: value
            for name, value in found[row]['encode'].items()
            if name.startswith(prefix) and not name.endswith(('_low', '_high'))
        }
        for row in ROWS
    }
    for name, (task, key, factor) in METRICS.items():
        summary[name] = {row: factor * found[row][task][key] for row in ROWS}
    return dict(summary, seconds=seconds)


def unmet_expectations(summary: Mapping[str, Any]) -> List[str]:
    """Say what did not come out as a working pipeline should make it.

    Expected: top-1 at least ten times chance; PCC of nfn above both others by more than the bootstrap error of the
    difference; APbox, APsegm and mIoU of nfn not below random.
    """
    unmet = []
    if summary['retrieval_top1'] < 10 * summary['retrieval_chance']:
        unmet.append('retrieval is less than ten times chance')
    error = summary['pcc_standard_error']
    for other in ('random', 'shuffled'):
        difference = summary['pcc']['nfn'] - summary['pcc'][other]
        if difference <= (error['nfn'] ** 2 + error[other] ** 2) ** 0.5:
            unmet.append(f'PCC of nfn is not above {other} by more than the bootstrap error')
    for name in METRICS:
        below = summary[name]['random'] - summary[name]['nfn']
        if below > 0:
            unmet.append(f'{name} of nfn is below random by {below:.1f}; seeds differ by about {SEED_STD[name]}')
    return unmet


def draw_demo_figure(out: Path, summary: Mapping[str, Any], pretrained: Path, data: Path) -> None:
    """Draw retrieval examples, ROI maps and the comparison of initialisations.

    Args:
        out: PNG file to write.
        summary: What :func:`summarize` returned.
        pretrained: Folder of the brain-guided pretraining.
        data: The simulated world and its stores.
    """
    samples, store = read_predictions(pretrained / EMBEDDINGS), StimulusImages(data / 'store/images_64.h5')
    figure = Figure(figsize=(13, 9.4), layout='constrained')
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    left, right = top.subfigures(1, 2)
    top1, chance = summary['retrieval_top1'], summary['retrieval_chance']
    left.suptitle(f'Images found by the brain response alone (top-1 {top1:.2f}, chance {chance:.3f})')
    own = [sample for sample in samples if sample['subject'] == samples[0]['subject']]
    image, fmri = (np.stack([np.asarray(s[f'{kind}_embedding']) for s in own]) for kind in ('image', 'fmri'))
    order = np.argsort(-fmri @ image.T, axis=1)
    for axes, query in zip(left.subplots(4, 5), np.linspace(0, len(own) - 1, 4).astype(int)):
        for place, (cell, pick) in enumerate(zip(axes, [query, *order[query]])):
            draw_overlay(cell, store[int(own[pick]['image_id'])])
            cell.set_title(f'found {place}' if place else 'seen', fontsize=8)
            if place and pick == query:
                cell.spines[:].set(visible=True, color='#2e9e5b', linewidth=3.5)

    masks = CategoryMasks(data / 'nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv', data / 'coco_stimuli')
    on_category = {roi: _mass_of_own_and_others(samples, roi, names, masks) for roi, names in CATEGORIES.items()}
    right.suptitle(
        'Where the predicted responses of ROIs come from: mass on the category\nover that of an even map (other ROIs)'
    )
    shown = [sample for sample in samples if sample['subject'] == samples[-1]['subject']][2:60:14][:4]
    for axes, sample in zip(right.subplots(len(shown), len(CATEGORIES) + 1), shown):
        draw_overlay(axes[0], store[int(sample['image_id'])])
        for cell, (roi, (category,)) in zip(axes[1:], CATEGORIES.items()):
            draw_overlay(cell, store[int(sample['image_id'])], np.asarray(sample['roi_maps'][ROI_CLASSES.index(roi)]))
            cell.set_title(f'{roi}\n{category} {on_category[roi][0]:.2f} ({on_category[roi][1]:.2f})', fontsize=8)

    panels = bottom.subplots(1, 3, width_ratios=(1, 3, 2))
    by_roi = summary['pcc_by_roi']
    error = [summary['pcc_standard_error'][row] for row in ROWS]
    _draw_bars(panels[0], 'PCC, held-out subject\n(raw Pearson r)', {'all voxels': summary['pcc']}, error)
    _draw_bars(panels[1], 'PCC by ROI', {roi: {row: by_roi[row][roi] for row in ROWS} for roi in ROI_CLASSES})
    panels[1].legend(fontsize=8.5, frameon=False, ncols=3)
    _draw_bars(panels[2], 'Mask R-CNN and UPerNet, %', {name: summary[name] for name in METRICS})
    bottom.supxlabel('Simulated world, micro Swin, one training run per bar; no result of real brains.', fontsize=8.5)
    with atomic_write(out) as temporary:
        figure.savefig(temporary, dpi=130, format='png')


def _mass_of_own_and_others(
    samples: Sequence[Mapping], roi: str, names: Sequence[str], masks: CategoryMasks
) -> Tuple[float, float]:
    """Compute how much of an ROI's maps lies on categories, and how much of the others' maps, on average."""
    found = localization(samples, ROI_CLASSES, dict.fromkeys(ROI_CLASSES, names), masks)
    own = found.pop(roi)[0]
    return own, float(np.mean([ratio for ratio, _ in found.values()]))


def _draw_bars(axes: Any, title: str, groups: Mapping[str, Mapping[str, float]], errors: Sequence[float] = ()) -> None:
    """Draw a bar for each row in each group."""
    for number, (row, label) in enumerate(ROWS.items()):
        heights = [values[row] for values in groups.values()]
        x = np.arange(len(groups)) + 0.27 * (number - 1)
        bars = axes.bar(x, heights, 0.25, color=COLOURS[row], label=label, yerr=errors[number] if errors else None)
        axes.bar_label(bars, fmt='%.3g', fontsize=6.5, padding=2)
    axes.set_xticks(np.arange(len(groups)), list(groups), fontsize=8.5)
    axes.set_title(title, fontsize=10)
    axes.spines[['top', 'right']].set_visible(False)
    axes.margins(y=0.25)
