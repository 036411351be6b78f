"""The figures of ``make demo``: collected, compared with what is expected, and printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List

from rich.console import Console
from rich.table import Table

INITS = ('random', 'shuffled', 'nfn')
"""Initialisations that are compared: random weights, pretrained on shuffled pairs, pretrained on right pairs."""

TASKS = dict(
    APbox=('detect', 'coco/bbox_mAP', 100), APsegm=('detect', 'coco/segm_mAP', 100), mIoU=('segment', 'mIoU', 1)
)
"""Figure → folder of its test, its name there, and the factor that makes it percent."""

SEED_DEVIATION = dict(APbox=0.5, APsegm=0.4, mIoU=0.8)
"""Standard deviation over three seeds, in percent, of the same recipes after an earlier pretraining."""


def _load(path: Path) -> dict:
    return json.loads(path.read_text('utf-8'))


def summarize(out: Path, seconds: Dict[str, float]) -> dict:
    """Collect the metrics that the commands of the demo wrote.

    Args:
        out: Folder with ``<init>/{detect,segment,encoding}/metrics.json`` and ``nfn/retrieval/metrics.json``.
        seconds: Time of each command.

    Returns:
        ``retrieval_top1`` and ``retrieval_chance`` (fractions); by initialisation ``pcc`` (raw Pearson r, held-out
        subject), ``pcc_standard_error``, ``pcc_normalized`` (r over the square root of the noise ceiling),
        ``pcc_by_roi``, and ``APbox``, ``APsegm`` and ``mIoU`` in percent; ``seconds``.
    """
    found = _load(out / 'nfn/retrieval/metrics.json')
    summary = dict(retrieval_top1=found['retrieval/image_to_brain_top1'], retrieval_chance=found['retrieval/chance'])
    encoding = {init: _load(out / init / 'encoding/metrics.json') for init in INITS}
    for name, key in (('pcc', 'pcc'), ('pcc_standard_error', 'pcc_se'), ('pcc_normalized', 'pcc_normalized')):
        summary[name] = {init: encoding[init][f'encoding/{key}'] for init in INITS}
    prefix = 'encoding/pcc_roi_'
    summary['pcc_by_roi'] = {
        init: {
            name[len(prefix) :]: value
            for name, value in encoding[init].items()
            if name.startswith(prefix) and not name.endswith(('_low', '_high'))
        }
        for init in INITS
    }
    for name, (task, key, factor) in TASKS.items():
        summary[name] = {init: factor * _load(out / init / task / 'metrics.json')[key] for init in INITS}
    summary['seconds'] = {name: round(value, 1) for name, value in seconds.items()}
    return summary


def unmet_expectations(summary: dict) -> List[str]:
    """What did not come out as a working pipeline should make it, in words.

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
    for name in TASKS:
        below = summary[name]['random'] - summary[name]['nfn']
        if below > 0:
            unmet.append(f'{name} of nfn is below random by {below:.1f}; seeds differ by about {SEED_DEVIATION[name]}')
    return unmet


def print_summary(summary: dict, console: Console) -> None:
    """Print the table, retrieval, and what was not as expected."""
    table = Table(title='Simulated world, micro Swin, one run each: what guidance by simulated brains was worth')
    for column in ('', *INITS):
        table.add_column(column, justify='right' if column else 'left')
    pcc, error = summary['pcc'], summary['pcc_standard_error']
    table.add_row('PCC, held-out subject (raw r ± s.e.)', *(f'{pcc[i]:.3f} ± {error[i]:.3f}' for i in INITS))
    table.add_row('PCC / noise ceiling', *(f'{summary["pcc_normalized"][init]:.3f}' for init in INITS))
    for name in TASKS:
        table.add_row(f'{name} (%)', *(f'{summary[name][init]:.1f}' for init in INITS))
    console.print(table)
    top1, chance = summary['retrieval_top1'], summary['retrieval_chance']
    console.print(
        f'Image→brain retrieval on held-out images: top-1 {top1:.3f}, chance {chance:.4f} ({top1 / chance:.0f}x).'
    )
    for line in unmet_expectations(summary):
        console.print(f'Not as expected: {line}.')
