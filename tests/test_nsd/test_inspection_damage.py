"""Damaged files of a release tree: an inspection names them, goes on, and judges as the preparation does."""

import gzip
import shutil

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.io
from release_tree import BETAS, copy_tree, overwrite, use_of, verdicts_are_those_of_the_preparation

from mmnfn.nsd.inspection import inspect
from mmnfn.nsd.release import ROI_CLASSES


@pytest.fixture()
def tree(world, tmp_path):
    return copy_tree(world / 'nsd', tmp_path / 'nsd')


def save_volume(path, change):
    image = nib.load(path)
    volume = change(np.asarray(image.dataobj).copy())
    path.unlink()
    nib.save(nib.Nifti1Image(volume, image.affine), path)
    return path.name


def save_betas(path, shape, chunks=None, **kwargs):
    path.unlink()
    with h5py.File(path, 'w') as file:
        file.create_dataset('betas', shape, np.int16, chunks=chunks, **kwargs)
    return path.name


def missing_session(layout):
    layout.beta_file('subj01', 1).unlink()
    layout.beta_file('subj01', 1, 'nii.gz').unlink()
    return 'lacks session(s) 1'


def responses_of_another(layout):
    shutil.copy(layout.responses_file('subj01'), layout.responses_file('subj02'))
    return 'subj02/behav/responses.tsv'


def few_responses(layout):
    path = layout.responses_file('subj01')
    return overwrite(path, b''.join(path.read_bytes().splitlines(True)[:701]))


def unknown_stimuli(layout):
    table = pd.read_csv(layout.stim_info_file, index_col=0).drop(columns='shared1000')
    table[table.nsdId < 17].to_csv(layout.stim_info_file)
    return 'lacks nsdId (0-based) '


def few_pictures(layout):
    layout.stimuli_file.unlink()
    with h5py.File(layout.stimuli_file, 'w') as file:
        file['imgBrick'] = np.zeros((900, 2, 2, 3), np.uint8)
    return 'holds 900 pictures'


def no_pictures(layout):
    layout.stimuli_file.unlink()
    with h5py.File(layout.stimuli_file, 'w') as file:
        file.create_group('imgBrick')
    return 'nsd_stimuli.hdf5 is no readable HDF5 file'


DAMAGES = {
    'ROI cut off': lambda t: overwrite(
        t.roi_file('subj01', 'streams'), t.roi_file('subj01', 'streams').read_bytes()[:900]
    ),
    'ROI of nothing': lambda t: overwrite(t.roi_file('subj01', 'streams'), gzip.compress(b'nothing')),
    'ROI of another shape': lambda t: save_volume(t.roi_file('subj01', 'floc-faces'), lambda v: v[1:]),
    'ROI with unknown labels': lambda t: save_volume(t.roi_file('subj01', 'floc-faces'), lambda v: v * 0 + 9),
    'ROIs empty': lambda t: [save_volume(t.roi_file('subj01', c), lambda v: v * 0) for c in ROI_CLASSES] and 'no voxel',
    'label table': lambda t: overwrite(t.label_file('subj01', 'streams'), b'\x00\x01 one\n'),
    'brain mask': lambda t: overwrite(t.anatomy_dir('subj01') / 'brainmask.nii.gz', b'nothing'),
    'brain mask of another shape': lambda t: save_volume(t.anatomy_dir('subj01') / 'brainmask.nii.gz', lambda v: v[1:]),
    'betas cut off': lambda t: overwrite(t.beta_file('subj01', 2), t.beta_file('subj01', 2).read_bytes()[:99_000]),
    'betas of another shape': lambda t: save_betas(t.beta_file('subj01', 2), (750, 3, 4, 5)),
    'missing session': missing_session,
    'one session too many': lambda t: shutil.copy(t.beta_file('subj01', 1), t.beta_file('subj01', 3)) and 'mat plans',
    'ncsnr of NaN': lambda t: save_volume(t.beta_dir('subj01') / 'ncsnr.nii.gz', lambda v: v * np.nan),
    'ncsnr cut off': lambda t: overwrite(t.beta_dir('subj01') / 'ncsnr.nii.gz', b''),
    'responses cut off': few_responses,
    'responses of another subject': responses_of_another,
    'design': lambda t: overwrite(t.design_file, b'nothing'),
    'stimulus table': lambda t: overwrite(t.stim_info_file, b'nothing'),
    'stimulus table cut off': unknown_stimuli,
    'stimuli': lambda t: overwrite(t.stimuli_file, b'nothing'),
    'too few stimuli': few_pictures,
    'no stimuli': no_pictures,
}


@pytest.mark.parametrize('case', DAMAGES)
def test_damage_is_a_problem_and_aborts_nothing(tree, tmp_path, case):
    named = DAMAGES[case](tree)
    found = inspect(tree.root)
    assert found.exit_code == 1 and named in found.problems[0]
    assert [subject.name for subject in found.subjects] == ['subj01', 'subj02'] and len(found.uses) == 9
    if 'brain' not in case:  # which nothing needs
        assert any('problem 1' in use.reason and use.answer == 'no' for use in found.uses)
    verdicts_are_those_of_the_preparation(tree, found, tmp_path / 'store')


def test_a_gap_is_named_with_its_files(tree):
    shutil.copy(tree.beta_file('subj01', 1), tree.beta_file('subj01', 7))
    found = inspect(tree.root, [1])
    use = use_of(found, 'ROI store', 'subj01')
    assert found.subjects[0].betas['b3'].gaps == [3, 4, 5, 6] and 'session(s) 3, 4, 5, 6 missing' in use.reason
    assert use.files == (BETAS.format('subj01', 'betas_session03.hdf5 to betas_session06.hdf5'),)


def test_a_gap_leaves_the_other_sessions_counted(tree):
    missing_session(tree)
    found = inspect(tree.root, [1]).subjects[0].betas['b3']
    mat = scipy.io.loadmat(tree.design_file)
    assert found.images() == len(set(mat['masterordering'][0, 750:].tolist())) and found.sessions == [2]


def test_other_chunks_are_slow_and_no_problem(tree):
    with h5py.File(tree.beta_file('subj01', 2)) as file:
        shape = file['betas'].shape
    save_betas(tree.beta_file('subj01', 2), shape, (750, 1, 1, 1), compression='gzip')
    found = inspect(tree.root, [1])
    assert found.problems == [] and use_of(found, 'ROI store', 'subj01').answer == 'yes'
    expected = 'slow: session 2 has chunks (750, 1, 1, 1), compression gzip'
    assert found.subjects[0].betas['b3'].reading == expected
