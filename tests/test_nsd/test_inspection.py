"""What an inspection says of a release tree, against slow loops over its files and against the preparation itself."""

import os
import shutil

import nibabel as nib
import numpy as np
import pytest
import scipy.io
from release_tree import BETAS, ROIS, copy_tree, remove, use_of, verdicts_are_those_of_the_preparation

from mmnfn.nsd import NSDLayout
from mmnfn.nsd.inspection import inspect
from mmnfn.nsd.release import ROI_CLASSES, ROI_LABELS


@pytest.fixture()
def tree(world, tmp_path):
    return copy_tree(world / 'nsd', tmp_path / 'nsd')


@pytest.fixture(scope='module')
def report(world):
    return inspect(world / 'nsd')


def answers(report):
    """Use → answer of the whole tree, or of subj01."""
    return {use.name: use.answer for use in report.uses if use.subject in ('', 'subj01')}


@pytest.mark.parametrize('position, subject', enumerate(['subj01', 'subj02']))
def test_counts_against_a_slow_loop(world, report, position, subject):
    layout, found = NSDLayout(world / 'nsd'), report.subjects[position]
    assert found.name == subject and found.obstacles == []
    union = set()
    for roi in ROI_CLASSES:
        labels = np.asarray(nib.load(layout.roi_file(subject, roi)).dataobj)
        voxels = set(map(tuple, np.argwhere(labels > 0)))
        assert found.rois[roi].voxels == len(voxels)
        for k, name in enumerate(ROI_LABELS[roi], 1):
            assert name in (found.rois[roi].labels if (labels == k).any() else found.rois[roi].empty)
        assert len(found.rois[roi].labels) + len(found.rois[roi].empty) == len(ROI_LABELS[roi])
        union |= voxels
    assert found.union == len(union)
    assert found.brain == (np.asarray(nib.load(layout.anatomy_dir(subject) / 'brainmask.nii.gz').dataobj) > 0).sum()
    assert found.other_rois == ('nsdgeneral',)

    sessions = 2 - position
    mat = scipy.io.loadmat(layout.design_file)
    own, shared = mat['subjectim'][position].tolist(), set(mat['sharedix'][0].tolist())
    times = {}
    for trial in mat['masterordering'][0, : 750 * sessions].tolist():
        times[own[trial - 1]] = times.get(own[trial - 1], 0) + 1
    betas = found.betas['b3']
    assert betas.images() == len(times) and betas.images(shared=True) == len(shared & set(times))
    assert betas.images(times=3) == sum(n == 3 for n in times.values())
    thrice = {image for image in shared & set(times) if times[image] == 3}
    assert betas.images(shared=True, times=3) == len(thrice)
    assert betas.seen_by_all == len(thrice)
    assert betas.sessions == [1, 2][:sessions] and betas.hdf5 == betas.nifti and betas.planned == 2
    assert found.response_trials == 750 * sessions and found.valid_maps == sessions
    assert betas.reading == 'one chunk per voxel' and betas.has_ncsnr and betas.obstacles == []


def test_a_whole_tree(report):
    assert report.problems == [] and report.exit_code == 0 and report.versions == ('b3',)
    assert {use.name: use.answer for use in report.uses if use.answer != 'yes'} == {'special-515 test set': 'partly'}
    assert use_of(report, 'special-515 test set').files == (BETAS.format('subj02', 'betas_session02.hdf5'),)
    assert {use.subject for use in report.uses if use.name == 'ROI store'} == {'subj01', 'subj02'}
    details = [report.common[name].detail for name in ('design', 'stim_info', 'stimuli')]
    assert details[0] == '1500 trials, 500 images per subject, 50 of them shared' and details[1] == '950 stimuli'
    assert details[2].startswith('uint8 (950, 64, 64, 3), chunks (1, 64, 64, 3), 0.0')


MISSING = {
    'one subject': (
        ['*/*/subj02'],
        {'special-515 test set': 'yes', 'held-out-subject encoding': 'no'},
        'held-out-subject encoding',
        'of subj01 only',
        (),
    ),
    'NIfTI only': ([BETAS.format('*', '*.hdf5')], {}, 'ROI store', 'all its files', ()),
    'stimuli': (
        ['nsddata_stimuli'],
        dict.fromkeys(['image store', 'pretraining', 'held-out-subject encoding'], 'no'),
        'image store',
        'nsd_stimuli.hdf5 missing',
        ('nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5',),
    ),
    'ncsnr': (
        [BETAS.format('*', 'ncsnr.nii.gz')],
        {},
        'noise ceiling',
        'estimated from 500 images shown three times',
        (),
    ),
    'an ROI class': (
        [ROIS.format('subj01', 'floc-words')],
        {'ROI store': 'no', 'held-out-subject encoding': 'no'},
        'ROI store',
        'floc-words.nii.gz missing',
        (ROIS.format('subj01', 'floc-words'),),
    ),
    'a label table': (
        ['nsddata/freesurfer/subj01/label/streams.mgz.ctab'],
        {'ROI store': 'no', 'held-out-subject encoding': 'no'},
        'ROI store',
        'streams.mgz.ctab missing',
        ('nsddata/freesurfer/subj01/label/streams.mgz.ctab',),
    ),
    'design': (
        ['nsddata/experiments/nsd/*.mat'],
        dict.fromkeys(
            ['ROI store', 'special-515 test set', 'image store', 'pretraining', 'held-out-subject encoding'], 'no'
        ),
        'special-515 test set',
        'nsd_expdesign.mat missing',
        ('nsddata/experiments/nsd/nsd_expdesign.mat',),
    ),
    'stimulus table': (
        ['nsddata/experiments/nsd/*.csv'],
        {'COCO overlap and captions': 'no'},
        'COCO overlap and captions',
        'nsd_stim_info_merged.csv missing',
        ('nsddata/experiments/nsd/nsd_stim_info_merged.csv',),
    ),
    'what is optional': (
        ['nsddata/ppdata/*/behav', 'nsddata/ppdata/*/func1pt8mm/*.nii.gz', ROIS.format('*', 'nsdgeneral')],
        {},
        'ROI store',
        'all its files are there',
        (),
    ),
    'betas of a subject': (
        ['nsddata_betas/ppdata/subj01'],
        {'ROI store': 'no', 'noise ceiling': 'no', 'held-out-subject encoding': 'no'},
        'ROI store',
        'no session of b3 betas',
        (BETAS.format('subj01', 'betas_session01.hdf5'), BETAS.format('subj01', 'ncsnr.nii.gz')),
    ),
}


@pytest.mark.parametrize('case', MISSING)
def test_missing_files_are_no_problem_but_named(tree, report, tmp_path, case):
    patterns, changed, name, reason, files = MISSING[case]
    remove(tree, *patterns)
    found = inspect(tree.root)
    assert found.problems == [] and found.exit_code == 0
    assert answers(found) == {**answers(report), **changed}
    use = use_of(found, name, 'subj01' if name in ('ROI store', 'noise ceiling') else '')
    assert reason in use.reason and use.files == files
    assert all(not (tree.root / file).exists() for use in found.uses for file in use.files)
    verdicts_are_those_of_the_preparation(tree, found, tmp_path / 'store')


def test_what_the_tables_say_of_missing_files(tree):
    remove(tree, ROIS.format('subj01', 'floc-words'), 'nsddata/freesurfer/subj01/label/streams.mgz.ctab')
    remove(tree, 'nsddata/ppdata/subj01/behav', '*/*/subj01/func1pt8mm/brainmask.nii.gz', BETAS.format('*', '*.hdf5'))
    subject = inspect(tree.root).subjects[0]
    assert (subject.roi_states['floc-words'], subject.roi_states['streams']) == ('missing', 'no label table')
    assert (subject.brain, subject.response_trials) == ('missing', 'missing')
    assert subject.betas['b3'].hdf5 == () and subject.betas['b3'].nifti == (1, 2)
    assert subject.betas['b3'].reading == 'slow: session 1 is NIfTI, which is unpacked whole'
    use = use_of(inspect(tree.root), 'ROI store', 'subj01')
    assert use.advice.split('--rois ')[1].split() == [c for c in ROI_CLASSES if c not in ('floc-words', 'streams')]


def test_too_few_repeats_to_estimate_ncsnr(tree, tmp_path):
    """Without ncsnr.nii.gz, a store needs images that were shown three times."""
    mat = scipy.io.loadmat(tree.design_file)
    mat['masterordering'] = np.tile(np.arange(1, 501), 3)[None]
    scipy.io.savemat(tree.design_file, {name: mat[name] for name in ('masterordering', 'subjectim', 'sharedix')})
    remove(tree, BETAS.format('*', 'ncsnr.nii.gz'), 'nsddata/ppdata/*/behav')
    found = inspect(tree.root)
    assert use_of(found, 'noise ceiling', 'subj01').reason.endswith('estimated from 500 images shown three times')
    for name in ('ROI store', 'noise ceiling'):
        use = use_of(found, name, 'subj02')
        assert use.answer == 'no' and use.files == (BETAS.format('subj02', 'ncsnr.nii.gz'),)
    assert found.exit_code == 0 and found.subjects[1].betas['b3'].images(times=3) == 0
    verdicts_are_those_of_the_preparation(tree, found, tmp_path / 'store')


def test_every_version_found(tree):
    other = NSDLayout(tree.root, 'b2')
    shutil.copytree(tree.beta_dir('subj02'), other.beta_dir('subj02'), copy_function=os.link)
    found = inspect(tree.root)
    assert found.versions == ('b2', 'b3')
    made = {(use.version, use.subject): use.answer for use in found.uses if use.name == 'ROI store'}
    assert made == {
        ('b2', 'subj01'): 'no',
        ('b2', 'subj02'): 'yes',
        ('b3', 'subj01'): 'yes',
        ('b3', 'subj02'): 'yes',
    }
    assert 'betas_fithrf/' in use_of(found, 'ROI store', 'subj01', 'b2').files[0]
    assert inspect(tree.root, versions=['b1']).versions == ('b1',)


def test_an_empty_tree(tmp_path):
    (tmp_path / 'nsddata').mkdir()
    found = inspect(tmp_path)
    assert (found.versions, found.subjects, found.exit_code) == (('b3',), [], 0)
    assert all(use.answer == 'no' for use in found.uses)


@pytest.mark.parametrize(
    'arguments, named',
    [
        (dict(subjects=[9]), 'subj09'),
        (dict(subjects=[1, 1]), 'repetitions'),
        (dict(versions=['b9']), 'b9'),
        (dict(versions=['b3', 'b3']), 'repetitions'),
    ],
)
def test_wrong_arguments(world, arguments, named):
    with pytest.raises(ValueError, match=named):
        inspect(world / 'nsd', **arguments)
