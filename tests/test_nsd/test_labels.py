"""ROIs by label and hemisphere, HCP_MMP1 and masks of one's own, against the NIfTI files read voxel by voxel."""

import os

import h5py
import nibabel as nib
import numpy as np
import pytest
from nsd_damage import volume
from nsd_tree import AFFINE, CLASSES, SHAPES, save_volume

from mmnfn.nsd import ROIStore
from mmnfn.nsd.preparation import prepare_subject

SUBJECT = 'subj01'


def make(tree, store, classes, subject=SUBJECT):
    return prepare_subject(tree, store, subject, [str(name) for name in classes], progress=False)


@pytest.fixture(scope='module')
def path(tiny, tmp_path_factory):
    return make(tiny, tmp_path_factory.mktemp('labels'), [*CLASSES, 'HCP_MMP1'])


def slow_roi(tree, store, roi_class, labels=None, hemisphere=None):
    """Voxels of a store that a NIfTI file gives one of some labels; all labels if None."""
    rows = [line.split() for line in tree.label_file(SUBJECT, roi_class).read_text().splitlines()]
    wanted = [int(k) for k, name in rows if k != '0' and (labels is None or name in labels)]
    stem = f'{hemisphere}.{roi_class}' if hemisphere else roi_class
    values = np.asarray(nib.load(tree.roi_file(SUBJECT, stem)).dataobj)
    return [v for v, place in enumerate(store.location['voxel'].tolist()) if values[tuple(place)] in wanted]


NAMED = {
    'floc-words': ('floc-words',),
    'mfs-words': ('floc-words', ['mfs-words']),
    'floc-words/mfs-words': ('floc-words', ['mfs-words']),
    'VWFA': ('floc-words', ['VWFA-1', 'VWFA-2']),
    'V1': ('prf-visualrois', ['V1v', 'V1d']),
    'hV4': ('prf-visualrois', ['hV4']),
    'early': ('streams', ['early']),
    'HCP_MMP1': ('HCP_MMP1',),
    'HCP_MMP1/V1': ('HCP_MMP1', ['V1']),
    'HCP_MMP1/V3': ('HCP_MMP1', ['V3']),
    'V3A': ('HCP_MMP1', ['V3A']),
}


@pytest.mark.parametrize('name, meant', NAMED.items(), ids=NAMED)
def test_names_mean_the_voxels_of_the_files(tiny, path, name, meant):
    store = ROIStore(path)
    whole = slow_roi(tiny, store, *meant)
    assert whole and store.roi(name).tolist() == whole
    for side in ('lh', 'rh'):
        half = slow_roi(tiny, store, *meant, hemisphere=side)
        assert store.roi(name, hemisphere=side).tolist() == store.roi(f'{side}.{name}').tolist() == half
    if len(meant) == 2:
        parts = [store.roi(meant[0], label) for label in meant[1]]
        assert np.sort(np.concatenate(parts)).tolist() == whole


def test_hemispheres_share_the_voxels(path):
    store = ROIStore(path)
    left, right = store.roi('lh.streams'), store.roi('rh.streams')
    assert len(left) and len(right) and sorted([*left, *right]) == store.roi('streams').tolist()


def test_a_label_that_the_subject_lacks_is_empty(path):
    store = ROIStore(path)
    assert len(store.roi('VWFA-1')) == len(store.roi('floc-words', 'VWFA-1', hemisphere='lh')) == 0


def test_labels_are_read_without_mmnfn(tiny, path):
    with h5py.File(path) as file:
        roi, store = file['roi/floc-words'], ROIStore(path)
        names = dict(zip(roi.attrs['numbers'], roi.attrs['labels']))
        assert list(names.values()) == ['OWFA', 'VWFA-1', 'VWFA-2', 'mfs-words', 'mTL-words']
        for name in names.values():
            found = [v for v, k in enumerate(roi[()]) if names.get(k) == name]
            assert found == slow_roi(tiny, store, 'floc-words', [name])


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('V9',), r"ROI 'V9' is not in .*subj01.h5, which has HCP_MMP1 \(V1, .*\); .*streams \(early, .*\)\. Prepare"),
        (('v1',), "ROI 'v1' is not in"),
        (('lh.V9',), "ROI 'V9' is not in"),
        (('floc-words', 'FFA-1'), r"'floc-words/FFA-1' is not in .* which has floc-words \(OWFA, [^;]*\)\. Prepare"),
        (('Kastner2015/V1',), "'Kastner2015/V1' is not in .* which has HCP_MMP1 .*; streams"),
        (('floc-words/',), "'floc-words/' is not in"),
        (('V1', None, 'left'), "hemisphere is 'left'; it must be lh or rh"),
    ],
)
def test_unknown_names_are_answered_with_what_there_is(path, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        ROIStore(path).roi(*arguments)
    assert '\n' not in str(caught.value)


def test_without_files_of_the_hemispheres_they_are_unknown(tree, tmp_path, path):
    for file in (tree.anatomy_dir(SUBJECT) / 'roi').glob('?h.*'):
        file.unlink()
    store = ROIStore(make(tree, tmp_path, [*CLASSES, 'HCP_MMP1']))
    assert store.roi('V1').tolist() == ROIStore(path).roi('V1').tolist()
    with pytest.raises(
        ValueError, match=f'subj01.h5 does not know the hemisphere of {len(store.roi("V1"))} voxel.* download'
    ):
        store.roi('lh.V1')


@pytest.fixture()
def mask(tmp_path):
    """A mask of each subject, with labels 1 and 700."""
    folder, rng = tmp_path / 'own', np.random.default_rng(2)
    for subject, shape in SHAPES.items():
        save_volume(
            folder / subject / 'mask.nii.gz', rng.choice([0, 1, 700], shape, p=[0.8, 0.1, 0.1]).astype(np.int16)
        )
    return folder / '{subject}/mask.nii.gz'


@pytest.mark.parametrize('subject', SHAPES)
def test_masks_of_ones_own_are_classes(tree, tmp_path, mask, subject):
    store = ROIStore(make(tree, tmp_path, [mask, 'streams'], subject))
    values = np.asarray(nib.load(str(mask).format(subject=subject)).dataobj)
    found = [values[tuple(place)] for place in store.location['voxel'].tolist()]
    assert store.roi_classes == ('mask', 'streams') and len(store.roi('mask')) == (values > 0).sum()
    assert store.roi('mask').tolist() == [v for v, value in enumerate(found) if value]
    assert (
        store.roi('700').tolist() == store.roi('mask', '700').tolist() == [v for v, x in enumerate(found) if x == 700]
    )
    beyond = (store.hemisphere[store.roi('mask')] == '').sum()  # cortex, of which nothing tells the hemisphere
    assert 0 < beyond < len(store.roi('mask')) and len(store.roi('lh.streams'))
    with pytest.raises(ValueError, match=f"does not know the hemisphere of {beyond} voxel.s. of 'mask'"):
        store.roi('lh.mask')


def test_a_mask_may_be_empty(tree, tmp_path):
    save_volume(tmp_path / 'none.nii.gz', np.zeros(SHAPES[SUBJECT], np.uint8))
    assert len(ROIStore(make(tree, tmp_path, ['streams', tmp_path / 'none.nii.gz'])).roi('none')) == 0


def test_a_mask_alone_lies_in_the_space_of_the_brain_mask(tree, tmp_path, mask):
    brain = tree.brain_mask_file(SUBJECT)
    with pytest.raises(FileNotFoundError, match='brain mask.*brainmask.nii.gz does not exist'):
        make(tree, tmp_path / 'store', [mask])
    save_volume(brain, np.ones(SHAPES[SUBJECT], np.int16))
    assert ROIStore(make(tree, tmp_path, [mask])).roi_classes == ('mask',)
    save_volume(brain, np.ones(SHAPES[SUBJECT], np.int16), AFFINE + np.eye(4)[3] * 2)
    with pytest.raises(ValueError, match='mask.nii.gz has shape .* but .*brainmask.nii.gz has'):
        make(tree, tmp_path, [mask])


def test_labels_of_several_masks_are_told_apart(tree, tmp_path, mask):
    other = tmp_path / 'other.nii.gz'
    save_volume(other, np.ones(SHAPES[SUBJECT], np.uint8))
    store = ROIStore(make(tree, tmp_path, ['streams', mask, other]))
    assert len(store.roi('other/1')) == len(store.ncsnr) > len(store.roi('mask/1')) > 0
    with pytest.raises(ValueError, match="ROI '1' is in several classes of .*subj01.h5. Write mask/1 or other/1."):
        store.roi('1')


BAD = {
    'missing': lambda path: path.unlink() or 'does not exist. Give a volume in func1pt8mm of subj01',
    'garbage': lambda path: path.write_bytes(b'mask') and 'cannot be read as NIfTI.*Give a volume',
    'of another shape': lambda path: volume(path, lambda v: v[1:]) and r'has shape \(4, 4, 6\) .*streams.nii.gz has',
    'elsewhere': lambda path: save_volume(path, np.ones(SHAPES[SUBJECT]), 2 * AFFINE) or 'and affine .*spaces',
    'fractions': lambda path: volume(path, lambda v: v * 0.3) and 'values other than the labels .*1 in the ROI',
    'no labels': lambda path: volume(path, lambda v: v * 50) and 'up to 35000: these are no labels',
}


@pytest.mark.parametrize('damage', BAD.values(), ids=BAD)
def test_wrong_masks_are_named_and_nothing_is_left(tree, tmp_path, mask, damage):
    file = tmp_path / 'own/subj01/mask.nii.gz'
    volume(file, lambda values: values.astype(float))
    message = damage(file)
    with pytest.raises((ValueError, FileNotFoundError), match=f'own/subj01/mask.nii.gz.*{message}') as caught:
        make(tree, tmp_path / 'store', ['streams', mask])
    assert '\n' not in str(caught.value) and not (tmp_path / 'store').exists()


def test_another_mask_of_the_name_makes_the_store_anew(tree, tmp_path, monkeypatch):
    first, second = tmp_path / 'first/mask.nii', tmp_path / 'second/mask.nii'
    for number, file in enumerate((first, second)):  # of the same size and time
        save_volume(file, (np.arange(120).reshape(SHAPES[SUBJECT]) % 3 == number).astype(np.uint8))
        os.utime(file, (1e9, 1e9))
    path = make(tree, tmp_path, ['streams', first])
    written, voxels = path.stat().st_ino, ROIStore(path).roi('mask').tolist()
    monkeypatch.chdir(tmp_path)
    assert make(tree, tmp_path, ['streams', 'first/mask.nii']).stat().st_ino == written
    assert ROIStore(make(tree, tmp_path, ['streams', second])).roi('mask').tolist() != voxels
    with pytest.raises(ValueError, match='name at least one ROI class, and each once'):
        make(tree, tmp_path, [first, second])
