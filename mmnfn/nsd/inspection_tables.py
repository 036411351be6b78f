"""The inspection of a release tree, printed."""

from __future__ import annotations

from typing import Dict, Iterator, List, Sequence, Tuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mmnfn.nsd.inspection_report import Betas, Report, RoiClass, Subject, Use
from mmnfn.nsd.release import TRIALS_PER_SESSION

STYLES = dict(yes='green', partly='yellow', no='red')


def render(report: Report, console: Console) -> None:
    """Print tables of subjects and common files, what can be done, and the problems.

    Args:
        report: The report.
        console: Where to; too many subjects for its width come in several tables.
    """
    _print_subjects(report, report.subjects, console)
    table = Table(title='Files of all subjects', title_justify='left')
    for column in ('', 'state', 'what it holds'):
        table.add_column(column)
    for file in report.common.values():
        table.add_row(file.name, file.state, file.detail)
    console.print(table)
    console.print()
    console.print('What can be done', style='bold')
    for line, style in _use_lines(report.uses):
        console.print(Text(line, style), soft_wrap=True)  # paths stay whole, to be copied
    if report.problems:
        console.print()
        console.print('Problems', style='bold')
    for number, problem in enumerate(report.problems, 1):
        console.print(Text(f'{number}. {problem}'), soft_wrap=True)


def _print_subjects(report: Report, subjects: Sequence[Subject], console: Console) -> None:
    table = Table(title=f'Subjects in {report.root}', title_justify='left')
    table.add_column()
    for subject in subjects:
        table.add_column(subject.name, max_width=28)
    rows = [dict(_subject_rows(subject)) for subject in subjects]
    for name in rows[0] if rows else ():
        table.add_row(name, *(row[name] for row in rows))
    wide = console.options.update(width=10_000)
    if len(subjects) > 1 and Measurement.get(console, wide, table).maximum > console.width:
        half = (len(subjects) + 1) // 2
        _print_subjects(report, subjects[:half], console)
        _print_subjects(report, subjects[half:], console)
    else:
        console.print(table if subjects else f'{report.root} holds nothing of any subject.')


def _subject_rows(subject: Subject) -> Iterator[Tuple[str, str]]:
    for name, roi in subject.rois.items():
        yield name, subject.roi_states[name] if roi is None else _roi_cell(roi)
    yield 'voxels in any of them', '-' if subject.union is None else str(subject.union)
    yield 'other ROI files', '\n'.join(subject.other_rois) or '-'
    yield 'brain mask, voxels', str(subject.brain)
    yield 'valid maps', str(subject.valid_maps)
    yield 'responses.tsv, trials', str(subject.response_trials)
    for version, betas in subject.betas.items():
        yield f'{version}: sessions', _sessions_cell(betas)
        yield f'{version}: trials of betas', str(TRIALS_PER_SESSION * len(betas.sessions))
        yield f'{version}: reading voxels', betas.reading or '-'
        yield f'{version}: ncsnr.nii.gz', 'yes' if betas.has_ncsnr else 'no'
        for title, count in (
            ('images seen', betas.images()),
            ('seen three times', betas.images(times=3)),
            ('shared', betas.images(shared=True)),
            ('shared three times', betas.images(shared=True, times=3)),
        ):
            yield f'{version}: {title}', '-' if count is None else str(count)


def _roi_cell(roi: RoiClass) -> str:
    lines = [f'{roi.voxels} voxels', f'{len(roi.labels)} of {len(roi.labels) + len(roi.empty)} labels']
    return '\n'.join(lines + [f'no {label}' for label in roi.empty])


def _sessions_cell(betas: Betas) -> str:
    mixed = len({betas.hdf5, betas.nifti, ()}) == 3
    formats = [
        f'{len(found)} {name}' if mixed else name
        for name, found in (('HDF5', betas.hdf5), ('NIfTI', betas.nifti))
        if found
    ]
    cell = f'{len(betas.sessions)} of {betas.planned}' + (f' ({", ".join(formats)})' if formats else '')
    return cell + (f'\nwithout {", ".join(map(str, betas.gaps))}' if betas.gaps else '')


def _use_lines(uses: Sequence[Use]) -> Iterator[Tuple[str, str]]:
    """Lines and their styles; subjects of whom the same is to be said share a line."""
    groups: Dict[tuple, List[str]] = {}
    for use in uses:
        key = (use.version, use.name, use.answer, use.reason, use.files, use.advice)
        groups.setdefault(key, []).append(use.subject)
    for (version, name, answer, reason, files, advice), subjects in groups.items():
        of = ' '.join(part for part in (version, ', '.join(filter(None, subjects))) if part)
        yield f'{answer:<6} {name}{f" ({of})" if of else ""}: {reason}', STYLES[answer]
        for file in files:
            yield f'         download {file}', ''
        if advice:
            yield f'         {advice}', ''
