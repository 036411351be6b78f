"""Two tested checkpoints, compared by their saved predictions: differences paired by image, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple, Union

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from mmnfn.evaluation.dump import read_predictions
from mmnfn.evaluation.retrieval import PARTNERS, both_directions, retrieval_metrics
from mmnfn.evaluation.ridge import bootstrap_r, draw_images, pearson_r
from mmnfn.utils import UserError, atomic_write

from .report import grid, holm

BOOTSTRAPS = 2000
IGNORED = 255
"""Value of label maps that means unlabelled."""
NOTE = (
    'All metrics are times 100. Intervals (95%) and p (two-sided) are by percentile bootstrap. The {images} test '
    'images were drawn {bootstraps} times, the same ones for A, B and all voxels: this tells how much a difference '
    'depends on the choice of images, and nothing about other trainings. p (Holm) is corrected for the number of '
    'ROIs, or of directions of retrieval.'
)


class Outcome(NamedTuple):
    """Hold a metric of A and of B.

    Attributes:
        group: Outcomes of one group are corrected for their number.
        name: Of the metric, within its group.
        values: Of A and of B.
        resampled: (2, bootstraps), those over images drawn with replacement, the same ones for A and B.
    """

    group: str
    name: str
    values: Sequence[float]
    resampled: np.ndarray


Pair = Tuple[List[dict], List[dict]]
"""Predictions of A and of B for the same samples in the same order."""


def compare_predictions(a: List[dict], b: List[dict], bootstraps: int = BOOTSTRAPS, seed: int = 0) -> pd.DataFrame:
    """Compare the predictions of two models for the same test images.

    What is compared depends on what was tested:

    - encoding: Pearson's r, the mean over voxels and then over subjects, of all voxels and of each ROI. A voxel with a
      constant prediction of A or B is left out of both.
    - retrieval: top-1 in both directions, the mean over subjects, the gallery whole.
    - segmentation: mIoU, from the intersections and unions of the drawn images.

    All trials of an image, and all crops of a photograph, are drawn together.

    Args:
        a: Predictions that ``tools/test.py --dump`` wrote.
        b: Those of the other model.
        bootstraps: Number of resamplings of the test images.
        seed: Of the resampling.

    Returns:
        A row for each outcome: ``group``, ``outcome``, ``A``, ``B``, ``A − B``, ``low`` and ``high`` (95% interval of
        the difference), ``p`` (two-sided, the share of resamplings beyond zero, at least 2 / (bootstraps + 1)) and
        ``p (Holm)``, corrected for the number of outcomes of the group. Metrics are times 100.

    Raises:
        UserError: A and B were not tested on the same, or nothing of them can be compared.
    """
    compare = next((compare for field, compare in KINDS.items() if field in a[0] and field in b[0]), None)
    if compare is None:
        kinds = 'encoding, retrieval or segmentation, and the same one'
        raise UserError(f'they must be predictions of {kinds}, but have {sorted(a[0])} and {sorted(b[0])}.')
    if [_sample(p) for p in a] != [_sample(p) for p in b]:
        raise UserError(
            f'they have other test images: {len(a)} samples from {_sample(a[0])} on, and {len(b)} from '
            f'{_sample(b[0])} on. Test both with the same config and data.'
        )
    _, photo = np.unique([str(p.get('photo_id', _sample(p)[1])) for p in a], return_inverse=True)
    draws = draw_images(photo.max() + 1, bootstraps, seed)[:, photo]
    rows = []
    for outcome in compare((a, b), draws):
        (value_a, value_b), difference = outcome.values, outcome.resampled[0] - outcome.resampled[1]
        difference = difference[~np.isnan(difference)]
        low, high = np.percentile(difference, (2.5, 97.5))
        beyond = min((difference <= 0).sum(), (difference >= 0).sum())
        numbers = np.asarray([value_a, value_b, value_a - value_b, low, high]) * 100
        rows.append((outcome.group, outcome.name, *numbers, min(2 * (beyond + 1) / (len(difference) + 1), 1)))
    table = pd.DataFrame(rows, columns=['group', 'outcome', 'A', 'B', 'A − B', 'low', 'high', 'p'])
    table['p (Holm)'] = table.groupby('group', sort=False).p.transform(holm)
    return table


def _sample(prediction: dict) -> tuple:
    return prediction.get('subject'), prediction.get('image_id', prediction.get('img_path'))


def _by_subject(pair: Pair) -> Iterator[Tuple[np.ndarray, Pair]]:
    """Give the indices of each subject's samples, and the predictions."""
    subjects = np.asarray([p['subject'] for p in pair[0]])
    for subject in np.unique(subjects):
        rows = np.flatnonzero(subjects == subject)
        yield rows, tuple([predictions[row] for row in rows] for predictions in pair)


def _stack(predictions: Sequence[Mapping], field: str) -> np.ndarray:
    return np.stack([np.asarray(p[field]) for p in predictions])


def _encoding(pair: Pair, draws: np.ndarray) -> Iterator[Outcome]:
    found: Dict[str, list] = {}
    for rows, own in _by_subject(pair):
        measured, voxels = _stack(own[0], 'responses'), own[0][0]['voxels']
        same = np.array_equal(voxels['index'], own[1][0]['voxels']['index'])
        if not same or not np.array_equal(measured, _stack(own[1], 'responses')):
            raise UserError(f'{own[0][0]["subject"]} has other voxels or responses. Test both with the same store.')
        predicted = [_stack(predictions, 'predicted_responses') for predictions in own]
        r = np.stack([pearson_r(p, measured) for p in predicted])
        resampled = np.stack([bootstrap_r(p, measured, draws[:, rows]) for p in predicted])
        known = ~np.isnan(r).any(0)
        for name, members in {'all voxels': np.arange(len(known)), **voxels['rois']}.items():
            chosen = members[known[members]]
            if chosen.size:
                values = r[:, chosen].mean(1), np.nanmean(resampled[:, :, chosen], axis=2, dtype=np.float64)
                found.setdefault(name, []).append(values)
    for name, parts in found.items():
        group = 'encoding PCC' if name == 'all voxels' else 'encoding PCC by ROI'
        values, resampled = (np.mean(of_subjects, axis=0) for of_subjects in zip(*parts))
        yield Outcome(group, name, values, resampled)


def _retrieval(pair: Pair, draws: np.ndarray) -> Iterator[Outcome]:
    partner = next((partner for partner, field in PARTNERS.items() if field in pair[0][0]), '')
    if PARTNERS.get(partner) not in pair[1][0]:
        raise UserError(f'{" and ".join(PARTNERS.values())} cannot be compared: images have other partners.')
    values, resampled = [], []
    for rows, own in _by_subject(pair):
        image_id = np.asarray([p['image_id'] for p in own[0]])
        photo_id = np.asarray([p.get('photo_id', p['image_id']) for p in own[0]])
        ranks = [
            both_directions(_stack(p, 'image_embedding'), _stack(p, PARTNERS[partner]), image_id, photo_id) for p in own
        ]
        values.append([[retrieval_metrics(one)['top1'][0] for one in both] for both in ranks])
        resampled.append([[retrieval_metrics(one, draws[:, rows])['top1'] for one in both] for both in ranks])
    values, resampled = np.mean(values, axis=0), np.mean(resampled, axis=0)
    for number, name in enumerate((f'image to {partner}', f'{partner} to image')):
        yield Outcome('retrieval top-1', name, values[:, number], resampled[:, number])


def _segmentation(pair: Pair, draws: np.ndarray) -> Iterator[Outcome]:
    for a, b in zip(*pair):
        if not torch.equal(a['gt_sem_seg']['data'], b['gt_sem_seg']['data']):
            raise UserError(f'{_sample(a)[1]} has other labels. Test both with the same config and data.')
    areas = [np.stack([_areas(p) for p in predictions]) for predictions in pair]
    values, resampled = zip(*((_mean_iou(x.sum(0)), _mean_iou(np.tensordot(draws, x, 1))) for x in areas))
    yield Outcome('segmentation', 'mIoU', values, np.stack(resampled))


def _areas(prediction: Mapping) -> np.ndarray:
    """Count the pixels of an image's intersection and union of each class: (2, classes)."""
    predicted, labels = (np.asarray(prediction[key]['data']).ravel() for key in ('pred_sem_seg', 'gt_sem_seg'))
    predicted, labels = predicted[labels != IGNORED], labels[labels != IGNORED]
    counts = (np.bincount(x, minlength=IGNORED + 1) for x in (predicted[predicted == labels], predicted, labels))
    both, of_predicted, of_labels = counts
    return np.stack([both, of_predicted + of_labels - both])


def _mean_iou(areas: np.ndarray) -> np.ndarray:
    """Average intersection over union of the classes that occur: (..., 2, classes) to (...)."""
    with np.errstate(invalid='ignore'):
        return np.nanmean(areas[..., 0, :] / areas[..., 1, :], axis=-1)


KINDS = dict(responses=_encoding, image_embedding=_retrieval, pred_sem_seg=_segmentation)
"""A field of the predictions → what compares them."""


def compare_files(a: Path, b: Path) -> Tuple[pd.DataFrame, str]:
    """Compare two files of predictions, or those of the same name in two folders.

    Returns:
        Table of :func:`compare_predictions`, and the note for its readers.

    Raises:
        UserError: There are no two such files, or they are of different test images.
    """
    pairs = [(a, b)]
    if a.is_dir() and b.is_dir():
        pairs = [(path, b / path.relative_to(a)) for path in sorted(a.rglob('*.pkl'))]
        pairs = [pair for pair in pairs if pair[1].is_file()]
    if not pairs:
        raise UserError(f'{a} and {b} have no .pkl file of the same name. Make them with tools/test.py --dump.')
    tables, counts = [], {}
    for pair in pairs:
        one, two = (read_predictions(path, ()) for path in pair)
        try:
            tables.append(compare_predictions(one, two))
        except UserError as error:
            raise UserError(f'{pair[0]} and {pair[1]} cannot be compared: {error}') from error
        counts[len({p.get('photo_id', _sample(p)[1]) for p in one})] = None
    images = ' and '.join(map(str, counts))
    return pd.concat(tables, ignore_index=True), NOTE.format(images=images, bootstraps=BOOTSTRAPS)


def write_comparison(table: pd.DataFrame, note: str, names: Sequence[str], out: Union[str, Path]) -> List[Path]:
    """Write ``comparison.md``, ``comparison.csv`` and ``comparison.png`` into a folder; return the files."""
    files = [Path(out) / f'comparison.{ending}' for ending in ('md', 'csv', 'png')]
    with atomic_write(files[0]) as temporary:
        temporary.write_text(f'A: {names[0]}  \nB: {names[1]}\n\n{grid(as_text(table))}\n\n{note}\n', 'utf-8')
    with atomic_write(files[1]) as temporary:
        table.to_csv(temporary, index=False)
    with atomic_write(files[2]) as temporary:
        draw_comparison(table).savefig(temporary, format='png', dpi=150)
    return files


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Round a table of :func:`compare_predictions` for its readers."""
    interval = [f'{row["A − B"]:+.1f} [{row.low:+.1f}, {row.high:+.1f}]' for _, row in table.iterrows()]
    texts = dict(outcome=table.group.str.cat(table.outcome, sep=', '), A=table.A.map('{:.1f}'.format))
    texts.update({'B': table.B.map('{:.1f}'.format), 'A − B [95% interval]': interval})
    return pd.DataFrame(dict(texts, **{name: table[name].map('{:.3f}'.format) for name in ('p', 'p (Holm)')}))


def draw_comparison(table: pd.DataFrame) -> Figure:
    """Draw the differences with their intervals, a panel for each group; filled where p (Holm) is below 0.05."""
    groups = list(table.groupby('group', sort=False))
    figure = Figure(figsize=(7, 0.9 * len(groups) + 0.3 * len(table) + 0.4), layout='constrained')
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(rows) + 1 for _, rows in groups])
    for axes, (group, rows) in zip(panels[:, 0], groups):
        for place, (_, row) in enumerate(rows.iterrows()):
            axes.plot([row.low, row.high], [place, place], color='C0')
            axes.plot(row['A − B'], place, 'o', color='C0', markerfacecolor='C0' if row['p (Holm)'] < 0.05 else 'white')
        axes.axvline(0, color='k', linewidth=0.8)
        axes.set_yticks(range(len(rows)), rows.outcome)
        axes.set(title=f'{group} × 100, A − B', ylim=(len(rows) - 0.5, -0.5))
        axes.spines[['top', 'right']].set_visible(False)
    return figure
