"""The inspection of a release tree against slow loops over its files, and against the preparation itself."""

import gzip
import os
import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io
from release_tree import BETAS, ROIS, copy_tree, overwrite, remove

from mmnfn.nsd import NSDLayout
from mmnfn.nsd.check import inspect
from mmnfn.nsd.preparation import prepare_subject
from mmnfn.nsd.release import ROI_CLASSES, ROI_LABELS

STORE, TRAIN, ENCODE = 'ROI store', 'pretraining and retrieval', 'encoding of a held-out subject'
COCO = 'COCO overlap and captions'


@pytest.fixture()
def tree(world, tmp_path):
    return copy_tree(world / 'nsd', tmp_path / 'nsd')


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
    layout, union = NSDLayout(world / 'nsd'), set()
    found = {name: row[subject] for name, row in report.table.items()}
    for roi in ROI_CLASSES:
        labels = np.asarray(nib.load(layout.roi_file(subject, roi)).dataobj)
        absent = [name for k, name in enumerate(ROI_LABELS[roi], 1) if not (labels == k).any()]
        assert found[roi] == f'{(labels > 0).sum()} voxels' + (f', no {", ".join(absent)}' if absent else '')
        union |= set(map(tuple, np.argwhere(labels > 0)))
    assert found['voxels in any of them'] == len(union)

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


MISSING = {
    'one subject': (['*/*/subj02'], {ENCODE}, (ENCODE, 'b3'), 'it needs ROI stores of two subjects', ()),
    'stimuli': (
        ['nsddata_stimuli'],
        {TRAIN, ENCODE},
        (TRAIN, 'b3'),
        'nsd_stimuli.hdf5 missing',
        ('nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5',),
    ),
    'an ROI class and its labels': (
        [ROIS.format('subj01', 'streams'), 'nsddata/freesurfer/subj01/label/streams.mgz.ctab'],
        {STORE, ENCODE},
        (STORE, 'b3 subj01'),
        'streams.nii.gz, streams.mgz.ctab missing',
        (ROIS.format('subj01', 'streams'), 'nsddata/freesurfer/subj01/label/streams.mgz.ctab'),
    ),
    'design': (
        ['nsddata/experiments/nsd/*.mat'],
        {STORE, TRAIN, ENCODE},
        (STORE, 'b3 subj01'),
        'nsd_expdesign.mat missing',
        ('nsddata/experiments/nsd/nsd_expdesign.mat',),
    ),
    'betas of a subject': (
        ['nsddata_betas/ppdata/subj01'],
        {STORE, ENCODE},
        (STORE, 'b3 subj01'),
        'betas_fithrf_GLMdenoise_RR missing',
        (BETAS.format('subj01', '')[:-1],),
    ),
    'ncsnr, where it can be estimated': ([BETAS.format('*', 'ncsnr.nii.gz')], set(), (STORE, 'b3 subj01'), '', ()),
    'trials': (['nsddata/ppdata/*/behav', ROIS.format('*', 'nsdgeneral')], set(), (STORE, 'b3 subj01'), '', ()),
}


@pytest.mark.parametrize('case', MISSING)
def test_missing_files_are_no_problem_but_named(tree, tmp_path, case):
    patterns, impossible, (name, of), reason, files = MISSING[case]
    remove(tree, *patterns)
    found = inspect(tree.root)
    assert found.problems == [] and {use.name for use in found.uses if not use.possible} == impossible
    use = use_of(found, name, of)
    assert use.reason == reason and use.missing == files
    assert all(f'      download {file}\n' in f'{found}\n' for file in files)
    check_verdict(tree, found, tmp_path / 'store')


def test_ncsnr_is_asked_for_where_it_cannot_be_estimated(tree, tmp_path):
    mat = scipy.io.loadmat(tree.design_file)
    mat['masterordering'] = np.tile(np.arange(1, 501), 3)[None]
    scipy.io.savemat(tree.design_file, {name: mat[name] for name in ('masterordering', 'subjectim', 'sharedix')})
    remove(tree, BETAS.format('*', 'ncsnr.nii.gz'), 'nsddata/ppdata/*/behav')
    found = inspect(tree.root)
    assert found.table['b3 ncsnr']['subj01'] == 'estimated from 500 images seen three times'
    use = use_of(found, STORE, 'b3 subj02')
    assert not use.possible and use.missing == (BETAS.format('subj02', 'ncsnr.nii.gz'),) and found.problems == []
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


def change_volume(path, change):
    image = nib.load(path)
    volume = change(np.asarray(image.dataobj).copy())
    path.unlink()
    nib.save(nib.Nifti1Image(volume, image.affine), path)
    return path.name


def write_betas(path, shape, **kwargs):
    path.unlink()
    with h5py.File(path, 'w') as file:
        file.create_dataset('betas', shape, np.int16, **kwargs)
    return path.name


def missing_session(layout):
    remove(layout, BETAS.format('subj01', 'betas_session01.*'))
    return 'lacks session(s) 1'


DAMAGES = {
    'ROI cut off': lambda t: overwrite(t.roi_file('subj01', 'streams'), gzip.compress(b'nothing')),
    'ROI of another shape': lambda t: change_volume(t.roi_file('subj01', 'floc-faces'), lambda v: v[1:]),
    'label table': lambda t: overwrite(t.label_file('subj01', 'streams'), b'\x00\x01 one\n'),
    'betas cut off': lambda t: overwrite(t.beta_file('subj01', 2), t.beta_file('subj01', 2).read_bytes()[:99_000]),
    'betas of another shape': lambda t: write_betas(t.beta_file('subj01', 2), (750, 3, 4, 5)),
    'missing session': missing_session,
    'one session too many': lambda t: shutil.copy(t.beta_file('subj01', 1), t.beta_file('subj01', 3)) and 'mat plans',
    'ncsnr of NaN': lambda t: change_volume(t.beta_dir('subj01') / 'ncsnr.nii.gz', lambda v: v * np.nan),
    'stimulus table': lambda t: overwrite(t.stim_info_file, b'nothing'),
    'stimuli': lambda t: overwrite(t.stimuli_file, b'nothing'),
}


@pytest.mark.parametrize('case', DAMAGES)
def test_damage_is_a_problem_and_hides_nothing(tree, tmp_path, case):
    named = DAMAGES[case](tree)
    found = inspect(tree.root)
    assert named in found.problems[0] and len(found.uses) == 5
    assert any('problem 1' in use.reason and not use.possible for use in found.uses)
    assert f'\n1. {found.problems[0]}' in str(found)
    check_verdict(tree, found, tmp_path / 'store')


def test_other_chunks_are_noted_as_slow(tree):
    with h5py.File(tree.beta_file('subj01', 2)) as file:
        shape = file['betas'].shape
    write_betas(tree.beta_file('subj01', 2), shape, chunks=(750, 1, 1, 1), compression='gzip')
    found = inspect(tree.root, [1])
    assert found.problems == [] and use_of(found, STORE, 'b3 subj01').possible
    assert len(found.notes) == 1 and 'is read a slower way' in found.notes[0] and found.notes[0] in str(found)
