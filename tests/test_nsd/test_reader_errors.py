"""Bad files in a release tree: the error names the file, and no store is left; legal oddities change nothing."""

import numpy as np
import pytest
import scipy.io
from nsd_damage import (
    betas,
    copy,
    cut,
    empty_rois,
    flip,
    gone,
    lines,
    moved,
    nifti,
    oblique,
    other_sessions,
    put,
    volume,
    write,
)
from nsd_tree import CLASSES, OWN, change_design, difference, slow_store

from mmnfn.nsd.preparation import prepare, prepare_subject


def design(variable, function):
    """A damage that changes a variable of the design."""

    def damage(tree):
        change_design(tree, **{variable: function(scipy.io.loadmat(tree.design_file)[variable])})
        return tree.design_file

    return damage


def trials(function):
    """A damage that changes the lines of the table of trials."""
    return lambda tree: lines(tree.responses_file('subj02'), function)


def another_image(found):
    """Another id in the last of 750 trials."""
    return [*found[:750], '\t'.join([*found[750].split('\t')[:2], '1500', 'NaN'])]


def four_sessions(tree):
    other_sessions(tree, 2, 3, 4)
    return f'{tree.design_file} plans 2250 trials, but subj02 has 4 sessions (3000 trials)'


BAD = {
    'betas missing': lambda t: gone(t.betas) and t.beta_dir('subj02'),
    'no folder of betas': lambda t: gone(t.beta_dir('subj02')),
    **{f'betas cut to {n} bytes': lambda t, n=n: cut(t.betas, n) for n in (0, 100000, -1)},
    'betas are a web page': lambda t: write(t.betas, '<html>'),
    'betas of another subject': lambda t: copy(t.beta_file('subj01', 1), t.betas),
    'betas lack a trial': lambda t: betas(t.betas, lambda b: b[..., 1:], chunks=(749, 1, 1, 1)),
    'betas are float32': lambda t: betas(t.betas, dtype='<f4'),
    'session missing in the middle': lambda t: other_sessions(t, 3),
    'more sessions than planned': four_sessions,
    'NIfTI betas half downloaded': lambda t: cut(t.nifti, 20000),
    'NIfTI betas without the end': lambda t: cut(t.nifti, -1),
    'NIfTI betas with a flipped byte': lambda t: flip(t.nifti, 0.7),
    'NIfTI betas of another space': lambda t: nifti(t, lambda b: b[:, 1:]),
    'NIfTI betas scaled': lambda t: nifti(t, slope=2),
    'ROI missing': lambda t: gone(t.words),
    'ROI of another subject': lambda t: copy(t.roi_file('subj01', 'floc-words'), t.words),
    'ROI elsewhere': lambda t: moved(t.words, np.diag([1, 1, 1.1, 1])),
    'ROI half downloaded': lambda t: cut(t.words, 150),
    'ROI with NaN': lambda t: volume(t.words, lambda v: put(v, (1, 1, 1), np.nan)),
    'ROI with fractions': lambda t: volume(t.words, lambda v: v * 0.5),
    'ROI with an unknown label': lambda t: volume(t.words, lambda v: put(v, (1, 1, 1), 6)),
    'ROI of a hemisphere elsewhere': lambda t: moved(t.left, np.diag([1, 1, 1.1, 1])),
    'ROI of a hemisphere half downloaded': lambda t: cut(t.left, 150),
    'ROIs all 0': empty_rois,
    'table missing': lambda t: gone(t.table),
    'table of another class': lambda t: copy(t.label_file('subj02', 'floc-words'), t.table),
    'table is garbage': lambda t: write(t.table, bytes(range(128, 255))),
    'ncsnr half downloaded': lambda t: cut(t.ncsnr, 200),
    'ncsnr NaN everywhere': lambda t: volume(t.ncsnr, lambda v: v * np.float32(np.nan)),
    'ncsnr in percent': lambda t: volume(t.ncsnr, lambda v: 100 * v**2 / (v**2 + np.float32(1 / 3))),
    'ncsnr of another subject': lambda t: copy(t.ncsnr_file('subj01'), t.ncsnr),
    'design missing': lambda t: gone(t.design_file),
    'design is a web page': lambda t: write(t.design_file, '<html>'),
    'design half downloaded': lambda t: cut(t.design_file, 5000),
    'order beyond the images': design('masterordering', lambda order: put(order, (0, 9), OWN + 1)),
    'order is no multiple of 750': design('masterordering', lambda order: order[:, :2249]),
    'design without the subject': design('subjectim', lambda own: own[:1]),
    'shared images of another set': design('sharedix', lambda shared: shared + 1),
    'trials cut': trials(lambda found: found[:700]),
    'trials of another subject': lambda t: copy(t.responses_file('subj01'), t.responses_file('subj02')),
    'trials with a renamed column': trials(lambda found: [found[0].replace('73KID', 'KID'), *found[1:]]),
    'trials with another id': trials(another_image),
}


@pytest.mark.parametrize('damage', BAD.values(), ids=BAD)
def test_bad_files_are_named_and_nothing_is_left(tree, tmp_path, damage):
    named, store = damage(tree), tmp_path / 'store'
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        prepare_subject(tree, store, 'subj02', CLASSES, progress=False)
    assert str(named) in str(caught.value) and '\n' not in str(caught.value)
    assert not store.exists() or not list(store.iterdir())


def test_the_wrong_trial_is_named(tree, tmp_path):
    trials(another_image)(tree)
    with pytest.raises(ValueError, match='responses.tsv: trial 750 of session 1 shows 73KID 1500, but the design file'):
        prepare_subject(tree, tmp_path, 'subj02', CLASSES, progress=False)


LEGAL = {
    'nothing': (True, lambda t: None),
    'betas big-endian': (True, lambda t: betas(t.betas, dtype='>i2')),
    'betas in other chunks': (True, lambda t: betas(t.betas, chunks=(1, 5, 4, 6))),
    'betas as NIfTI': (True, lambda t: t.nifti),
    'betas as NIfTI, scl_slope 1': (True, lambda t: nifti(t, slope=1)),
    'ROI class without label': (False, lambda t: volume(t.words, lambda v: np.minimum(v, 0))),
    'ROI not quite whole': (True, lambda t: volume(t.words, lambda v: v + 1e-4)),
    'ROIs in an oblique volume': (False, oblique),
    'ncsnr NaN in some voxels': (False, lambda t: volume(t.ncsnr, lambda v: put(v, slice(0, 3), np.nan))),
    'label table with more labels': (True, lambda t: lines(t.table, lambda found: [*found, '9 none', '', '10 none\t'])),
    'label table of Windows': (True, lambda t: write(t.table, t.table.read_bytes().replace(b'\n', b'\r\n'))),
    'shared images in another order': (True, design('sharedix', lambda shared: shared[:, ::-1])),
}


@pytest.mark.filterwarnings('ignore:.*this copy is read a slower way:UserWarning')
@pytest.mark.parametrize('unchanged, change', LEGAL.values(), ids=LEGAL)
def test_legal_oddities(tiny, tree, tmp_path, unchanged, change):
    change(tree)
    path = prepare_subject(tree, tmp_path / 'store', 'subj02', CLASSES, progress=False)
    assert difference(path, slow_store(tree.root, 'subj02')) == ''
    if unchanged:
        assert difference(path, slow_store(tiny.root, 'subj02')) == ''
    assert [file.name for file in path.parent.iterdir()] == ['subj02.h5']


def test_both_splits_are_needed(tree, tmp_path):
    tree.responses_file('subj02').unlink()
    design('masterordering', lambda order: (order - 1) % 75 + 1)(tree)
    with pytest.raises(ValueError, match='nsd_expdesign.mat: the 1 session.s. of subj02 show 75 shared and 0 other'):
        prepare_subject(tree, tmp_path / 'store', 'subj02', CLASSES, progress=False)
    assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize(
    'options, error, named',
    [
        (dict(dtype='float64'), ValueError, "dtype is 'float64'"),
        (dict(normalization='test'), ValueError, "normalization is 'test'"),
        (dict(max_sessions=0), ValueError, 'max_sessions is 0'),
        (dict(roi_classes=['streams', 'streams']), ValueError, r"roi_classes is \['streams', 'streams'\]"),
        (
            dict(roi_classes=['V1']),
            ValueError,
            "ROI class is 'V1'; known for subj02 are HCP_MMP1, .* paths of",
        ),
        (dict(subjects=[2, 'subj02']), ValueError, 'subjects has repetitions'),
        (dict(subjects=['subj03']), FileNotFoundError, 'subj03'),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_left(tiny, tmp_path, options, error, named):
    options = dict(dict(subjects=['subj02'], roi_classes=CLASSES, progress=False), **options)
    with pytest.raises(error, match=named):
        prepare(tiny, tmp_path / 'store', **options)
    assert not (tmp_path / 'store').exists()
