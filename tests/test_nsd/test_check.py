"""The inspection of a release tree against slow loops over its files, and against the preparation itself."""

import os
import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io
from nsd_damage import copy, cut, gone, volume, write
from nsd_tree import change_design

from mmnfn.nsd import NSDLayout
from mmnfn.nsd.check import inspect
from mmnfn.nsd.preparation import prepare_subject
from mmnfn.nsd.release import ROI_CLASSES, ROI_LABELS

STORE, TRAIN, ENCODE = 'ROI store', 'pretraining and retrieval', 'encoding of a held-out subject'
COCO = 'COCO overlap and captions'


@pytest.fixture()
def tree(world, tmp_path):
    """A copy of the simulated release that a test may damage, by replacing the large files: they are links."""

    def link_or_copy(file, copy):
        (os.link if os.path.getsize(file) > 1_000_000 else shutil.copy2)(file, copy)

    return NSDLayout(shutil.copytree(world / 'nsd', tmp_path / 'nsd', copy_function=link_or_copy))


@pytest.fixture(scope='module')
def report(world):
    return inspect(world / 'nsd')


def use_of(report, name, of):
    (use,) = [use for use in report.uses if (use.name, use.of) == (name, of)]
    return use


def check_verdict(layout, report, folder, subject='subj01'):
    """The report says that a ROI store can be made if and only if it can."""
    try:
        possible = bool(prepare_subject(layout, folder, subject, progress=False))
    except Exception:
        possible = False
    assert use_of(report, STORE, f'b3 {subject}').possible == possible


@pytest.mark.parametrize('position, subject', enumerate(['subj01', 'subj02']))
def test_counts_equal_a_slow_loop(world, report, position, subject):
    layout, union, sides = NSDLayout(world / 'nsd'), set(), dict(lh=set(), rh=set())
    found = {name: row[subject] for name, row in report.table.items()}
    for roi in ROI_CLASSES:
        labels = np.asarray(nib.load(layout.roi_file(subject, roi)).dataobj)
        assert found[roi] == f'{(labels > 0).sum()} voxels'
        for k, name in enumerate(ROI_LABELS[roi], 1):
            assert found[f'{roi}/{name}'] == (labels == k).sum()
        union |= set(map(tuple, np.argwhere(labels > 0)))
        for side, voxels in sides.items():
            labels = np.asarray(nib.load(layout.roi_file(subject, f'{side}.{roi}')).dataobj)
            voxels |= set(map(tuple, np.argwhere(labels > 0)))
    assert found['voxels in any of them'] == len(union)
    assert found['left and right'] == f'{len(sides["lh"])}, {len(sides["rh"])}'

    sessions = 2 - position
    mat = scipy.io.loadmat(layout.design_file)
    own, shared = mat['subjectim'][position].tolist(), set(mat['sharedix'][0].tolist())
    times = {}
    for trial in mat['masterordering'][0, : 750 * sessions].tolist():
        times[own[trial - 1]] = times.get(own[trial - 1], 0) + 1
    thrice = {image for image, count in times.items() if count == 3}
    assert found['b3 sessions'] == f'{sessions} of 2' and found['b3 ncsnr'] == 'ncsnr.nii.gz'
    assert found['b3 images'] == f'{len(times)}, {len(shared & set(times))} of them shared'
    assert found['b3 seen three times'] == f'{len(thrice)}, {len(shared & thrice)} of them shared'
    assert found['b3 seen three times by all subjects'] == len(shared & thrice)


def test_a_whole_tree_allows_everything(report):
    assert all(use.possible for use in report.uses) and report.problems == report.notes == []
    assert [(use.name, use.of) for use in report.uses] == [
        *((STORE, f'b3 {subject}') for subject in ('subj01', 'subj02')),
        *((name, name != COCO and 'b3' or '') for name in (TRAIN, ENCODE, COCO)),
    ]
    assert use_of(report, TRAIN, 'b3').reason == 'set subjects = [1, 2] in configs/_base_/datasets/nsd.py'
    assert report.common['design'] == '1500 trials, 50 shared images'
    assert (report.common['stimulus table'], report.common['stimuli']) == ('950 stimuli', '950 images of 64 pixels')


STREAMS = 'nsddata/ppdata/subj01/func1pt8mm/roi/streams.nii.gz', 'nsddata/freesurfer/subj01/label/streams.mgz.ctab'
BETAS = 'nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR'
DESIGN, STIMULI = 'nsddata/experiments/nsd/nsd_expdesign.mat', 'nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5'
FIRST = STORE, 'b3 subj01'
# files that are removed, uses that are impossible then, and one of them with the reason and the files to download
MISSING = {
    'one subject': (('*/*/subj02',), {ENCODE}, (ENCODE, 'b3'), 'it needs ROI stores of two subjects', ()),
    'stimuli': ((STIMULI,), {TRAIN, ENCODE}, (TRAIN, 'b3'), 'nsd_stimuli.hdf5 missing', (STIMULI,)),
    'an ROI class': (STREAMS, {STORE, ENCODE}, FIRST, 'streams.nii.gz, streams.mgz.ctab missing', STREAMS),
    'design': ((DESIGN,), {STORE, TRAIN, ENCODE}, FIRST, 'nsd_expdesign.mat missing', (DESIGN,)),
    'betas': ((BETAS,), {STORE, ENCODE}, FIRST, 'betas_fithrf_GLMdenoise_RR missing', (BETAS,)),
    'ncsnr, where it can be estimated': ((f'{BETAS}/ncsnr.nii.gz',), set(), FIRST, '', ()),
    'trials': (('nsddata/ppdata/*/behav',), set(), FIRST, '', ()),
}


def remove(layout, *patterns):
    """Remove files and folders of a tree."""
    for path in [path for pattern in patterns for path in layout.root.glob(pattern)]:
        gone(path)


@pytest.mark.parametrize('patterns, impossible, use, reason, files', MISSING.values(), ids=MISSING)
def test_missing_files_are_no_problem_but_named(tree, tmp_path, patterns, impossible, use, reason, files):
    remove(tree, *patterns)
    found = inspect(tree.root)
    assert found.problems == [] and {use.name for use in found.uses if not use.possible} == impossible
    assert (use_of(found, *use).reason, use_of(found, *use).missing) == (reason, files)
    assert all(f'      download {file}\n' in f'{found}\n' for file in files)
    check_verdict(tree, found, tmp_path / 'store')


def test_ncsnr_is_asked_for_where_it_cannot_be_estimated(tree, tmp_path):
    change_design(tree, masterordering=np.tile(np.arange(1, 501), 3)[None])
    remove(tree, 'nsddata_betas/ppdata/*/*/*/ncsnr.nii.gz', 'nsddata/ppdata/*/behav')
    found = inspect(tree.root)
    assert found.table['b3 ncsnr']['subj01'] == 'estimated from 500 images seen three times'
    use = use_of(found, STORE, 'b3 subj02')
    assert not use.possible and use.missing == (f'{BETAS}/ncsnr.nii.gz'.replace('subj01', 'subj02'),)
    assert found.problems == []
    check_verdict(tree, found, tmp_path / 'store', 'subj02')


def test_every_version_is_judged(tree):
    other = NSDLayout(tree.root, 'b2')
    shutil.copytree(tree.beta_dir('subj02'), other.beta_dir('subj02'), copy_function=os.link)
    made = {use.of: use.possible for use in inspect(tree.root).uses if use.name == STORE}
    assert made == {'b2 subj01': False, 'b2 subj02': True, 'b3 subj01': True, 'b3 subj02': True}
    assert {use.of for use in inspect(tree.root, [2], 'b2').uses} == {'b2 subj02', 'b2', ''}


def test_a_tree_without_subjects_allows_nothing(tmp_path):
    (tmp_path / 'nsddata').mkdir()
    found = inspect(tmp_path)
    assert not any(use.possible for use in found.uses) and found.problems == [] and 'no subject' in str(found)


def missing_session(layout):
    gone(layout.beta_file('subj01', 1))
    return 'lacks session(s) 1'


# test_reader_errors.py has more damages: what stops the preparation stops the inspection, in the same words.
DAMAGES = {
    'ROI cut off': lambda t: cut(t.roi_file('subj01', 'streams'), 150),
    'betas cut off': lambda t: cut(t.beta_file('subj01', 2), 99_000),
    'missing session': missing_session,
    'one session too many': lambda t: copy(t.beta_file('subj01', 1), t.beta_file('subj01', 3)) and 'mat plans',
    'ncsnr of NaN': lambda t: volume(t.ncsnr_file('subj01'), lambda v: v * np.float32(np.nan)),
    'stimulus table': lambda t: write(t.stim_info_file, 'nothing'),
    'stimuli': lambda t: write(t.stimuli_file, 'nothing'),
}


@pytest.mark.parametrize('case', DAMAGES)
def test_damage_is_a_problem_and_hides_nothing(tree, tmp_path, case):
    named = str(DAMAGES[case](tree))
    found = inspect(tree.root)
    assert named in found.problems[0] and len(found.uses) == 5
    assert any('problem 1' in use.reason and not use.possible for use in found.uses)
    assert f'\n1. {found.problems[0]}' in str(found)
    check_verdict(tree, found, tmp_path / 'store')


def test_other_chunks_are_noted_as_slow(tree):
    path = tree.beta_file('subj01', 2)
    with h5py.File(path) as file:
        shape = file['betas'].shape
    path.unlink()
    with h5py.File(path, 'w') as file:
        file.create_dataset('betas', shape, np.int16, chunks=(750, 1, 1, 1), compression='gzip')
    found = inspect(tree.root, [1])
    assert found.problems == [] and use_of(found, STORE, 'b3 subj01').possible
    assert len(found.notes) == 1 and 'is read a slower way' in found.notes[0] and found.notes[0] in str(found)
