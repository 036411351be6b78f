"""What can be done with a release tree that was inspected, and what is to be downloaded for the rest."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from .design import Design
from .inspection_report import Obstacle, Report, Subject, Use
from .release import NSDLayout

PRETRAINING_SUBJECTS = tuple(f'subj{n:02d}' for n in range(1, 8))
"""Subjects that configs/nfn train on."""
HELD_OUT_SUBJECT = 'subj08'
"""Subject that configs/encoding predict."""


def session_paths(
    report: Report, layout: NSDLayout, subject: str, sessions: Sequence[int], suffix: str
) -> Tuple[str, ...]:
    """Paths of some sessions (1-based) relative to the root; of more than two in a row only the first and last."""
    runs = np.split(np.asarray(sessions, int), np.flatnonzero(np.diff(sessions) != 1) + 1)
    paths = []
    for run in runs:
        files = [layout.beta_file(subject, int(session), suffix) for session in run]
        if len(files) > 2:
            paths.append(f'{report.relative(files[0])} to {files[-1].name}')
        else:
            paths += [report.relative(file) for file in files]
    return tuple(paths)


def possible_uses(report: Report, layouts: Dict[str, NSDLayout], design: Optional[Design]) -> List[Use]:
    """The uses of a tree, version by version, and those without betas at the end.

    Args:
        report: The report, complete except for its uses.
        layouts: Version → tree.
        design: The design, if it could be read.
    """
    uses = []
    for version, layout in layouts.items():
        stores = [_roi_store(subject, version) for subject in report.subjects]
        if not stores:
            stores = [Use('ROI store', 'no', 'no subject in this tree', advice=_another_subject(layout))]
        made = [use.subject for use in stores if use.answer == 'yes']
        images = _image_store(report, made)
        own = stores + [_noise_ceiling(subject, version) for subject in report.subjects]
        own += [_seen_by_all(report, layout, design), images]
        own += [_pretraining(images, made), _held_out(images, made, layout)]
        uses += [Use(**{**vars(use), 'version': version}) for use in own]
    return [*uses, _coco(report)]


def _no(name: str, obstacles: Sequence[Obstacle], subject: str = '', advice: str = '') -> Use:
    reasons = '; '.join(dict.fromkeys(obstacle.reason for obstacle in obstacles))
    files = tuple(dict.fromkeys(file for obstacle in obstacles for file in obstacle.files))
    return Use(name, 'no', reasons, files, advice, subject)


def _roi_store(subject: Subject, version: str) -> Use:
    betas = subject.betas[version]
    readable = [roi for roi, found in subject.rois.items() if found is not None and found.voxels]
    rest = betas.obstacles + betas.ncsnr_obstacles
    if subject.obstacles or rest:
        advice = ''
        if not rest and subject.union:
            advice = f'or prepare without the others: --rois {" ".join(readable)}'
        return _no('ROI store', subject.obstacles + rest, subject.name, advice)
    return Use('ROI store', 'yes', 'all its files are there', subject=subject.name)


def _noise_ceiling(subject: Subject, version: str) -> Use:
    betas = subject.betas[version]
    if betas.ncsnr_obstacles:
        return _no('noise ceiling', betas.ncsnr_obstacles, subject.name)
    if betas.has_ncsnr:
        return Use('noise ceiling', 'yes', "from NSD's own ncsnr.nii.gz", subject=subject.name)
    if betas.obstacles:
        return _no('noise ceiling', betas.obstacles, subject.name)
    reason = f'ncsnr.nii.gz missing, estimated from {betas.images(times=3)} images shown three times'
    return Use('noise ceiling', 'yes', reason, subject=subject.name)


def _seen_by_all(report: Report, layout: NSDLayout, design: Optional[Design]) -> Use:
    """The test set of images that all subjects saw three times, 515 in NSD."""
    name = 'special-515 test set'
    if design is None:
        return _no(name, report.common['design'].obstacles)
    betas = [subject.betas[layout.beta_version] for subject in report.subjects]
    found = [b.seen_by_all for b in betas if b.seen_by_all is not None]
    if not found:
        return Use(name, 'no', "no subject's sessions can be used")
    whole = len(design.seen_by_all({}))
    fewest = min(found)
    if fewest >= whole > 0:
        return Use(name, 'yes', f'{whole} images were seen three times by all subjects')
    # All subjects see their images in the same order, so that the one with the fewest sessions sets the limit.
    needed, files = min(design.full_sessions().values()), []
    for subject in layout.subjects():
        try:
            last = layout.sessions(subject)[-1]
        except (ValueError, OSError):  # stands among the obstacles of its ROI store
            continue
        if subject in design.subjects and last < needed:
            suffix = layout.session_file(subject, last).name.split('.', 1)[1]
            files += session_paths(report, layout, subject, range(last + 1, needed + 1), suffix)
    reason = f'{fewest} of {whole} images were seen three times by all subjects in the sessions at hand'
    return Use(name, 'partly' if fewest else 'no', reason, tuple(files))


def _image_store(report: Report, made: Sequence[str]) -> Use:
    obstacles = list(report.common['stimuli'].obstacles)
    if not made:
        obstacles.append(Obstacle('no ROI store can be made whose images it would hold'))
    if obstacles:
        return _no('image store', obstacles)
    return Use('image store', 'yes', 'the stimuli are there')


def _pretraining(images: Use, made: Sequence[str]) -> Use:
    if images.answer == 'no':
        return Use('pretraining', 'no', 'it needs ROI stores and the image store')
    advice = ''
    if not set(PRETRAINING_SUBJECTS) <= set(made):
        numbers = ', '.join(str(int(name[4:])) for name in made)
        advice = f'set subjects = [{numbers}] in configs/_base_/datasets/nsd.py, or fewer to hold one out'
    return Use('pretraining', 'yes', 'ROI stores and the image store can be made', advice=advice)


def _held_out(images: Use, made: Sequence[str], layout: NSDLayout) -> Use:
    name = 'held-out-subject encoding'
    if images.answer == 'no':
        return Use(name, 'no', 'it needs ROI stores and the image store')
    if len(made) < 2:
        return Use(name, 'no', f'a ROI store can be made of {made[0]} only', advice=_another_subject(layout))
    advice = ''
    if HELD_OUT_SUBJECT not in made:
        advice = (
            'set the subject that is held out in configs/_base_/datasets/nsd_encoding.py, and leave it out of '
            'configs/_base_/datasets/nsd.py'
        )
    return Use(name, 'yes', f'ROI stores of {len(made)} subjects can be made', advice=advice)


def _another_subject(layout: NSDLayout) -> str:
    betas = layout.beta_dir('subj01').relative_to(layout.root).as_posix().replace('subj01', 'subj0N')
    return (
        f'download nsddata/ppdata/subj0N/func1pt8mm/, nsddata/freesurfer/subj0N/label/ and {betas}/ of a subject, or '
        'see above what its ROI store needs'
    )


def _coco(report: Report) -> Use:
    name = 'COCO overlap and captions'
    if report.common['stim_info'].obstacles:
        return _no(name, report.common['stim_info'].obstacles)
    advice = 'captions also need annotations_trainval2017.zip from cocodataset.org'
    return Use(name, 'yes', 'the stimulus table names the COCO images', advice=advice)
