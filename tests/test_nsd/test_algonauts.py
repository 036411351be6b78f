"""ROI stores of the Algonauts 2023 data against a slow loop, and bad input."""

import os
import shutil
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from algonauts_tree import CHALLENGE, SURFACE, change, picture, positions, write_fsaverage, write_stim_info, write_tree
from same import as_written

from mmnfn.nsd import ROIStore, StimulusImages
from mmnfn.nsd.algonauts import HEMISPHERES, AlgonautsLayout
from mmnfn.nsd.algonauts_preparation import SplitRule, prepare, prepare_images, prepare_subject
from mmnfn.nsd.fsaverage import read_white_surface
from mmnfn.nsd.release import ROI_CLASSES


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp('algonauts') / 'data')


@pytest.fixture(scope='module')
def stores(tree, tmp_path_factory):
    """Stores of both subjects and their pictures at 32 pixels."""
    out = tmp_path_factory.mktemp('stores')
    layout = AlgonautsLayout(tree)
    prepare(layout, out, layout.subjects(), tree / 'fsaverage', image_size=32, progress=False)
    return out


@pytest.fixture()
def copy(tree, tmp_path):
    """A copy of the tree that a test may damage."""
    return AlgonautsLayout(shutil.copytree(tree, tmp_path / 'data'))


def slow_store(root, subject):
    """Ids, responses, coordinates, vertices, hemispheres and classes of the vertices, vertex by vertex."""
    masks, fmri = root / subject / 'roi_masks', root / subject / 'training_split/training_fmri'
    rows = {}
    for name in os.listdir(root / subject / 'training_split/training_images'):
        if name.startswith('train-'):
            rows[int(name[-9:-4])] = int(name[6:10]) - 1
    columns, places, classes = [], [], []
    for hemisphere in ('lh', 'rh'):
        responses = np.load(fmri / f'{hemisphere}_training_fmri.npy')
        every = np.load(masks / f'{hemisphere}.all-vertices_fsaverage_space.npy')
        labels = {c: np.load(masks / f'{hemisphere}.{c}_challenge_space.npy') for c in ROI_CLASSES}
        k = -1
        for vertex in range(len(every)):
            if every[vertex]:
                k += 1
                mine = [c for c in ROI_CLASSES if labels[c][k] > 0]
                if mine:
                    columns.append([responses[rows[i], k] for i in sorted(rows)])
                    places.append((hemisphere, vertex, *positions(hemisphere)[vertex]))
                    classes.append(mine)
    return sorted(rows), np.asarray(columns).T, places, classes


@pytest.mark.parametrize('subject, images', [('subj01', 40), ('subj06', 33)])
def test_store_against_a_slow_loop(tree, stores, subject, images):
    ids, responses, places, classes = slow_store(tree, subject)
    store = ROIStore(stores / f'{subject}.h5')
    assert store.subject == subject and len(ids) == images and store.image_id.tolist() == ids
    assert store.responses.dtype == np.float32 and (store.responses == responses).all()
    assert store.location['hemisphere'].astype(str).tolist() == [place[0] for place in places]
    assert store.location['vertex'].tolist() == [place[1] for place in places]
    assert np.allclose(store.coordinates, [place[2:] for place in places], atol=1e-4)
    for name in ROI_CLASSES:
        assert store.roi(name).tolist() == [k for k, mine in enumerate(classes) if name in mine]
    assert (store.repeats == 0).all() and not store.seen_by_all.any()
    assert np.isnan(store.ncsnr).all() and np.isnan(store.noise_ceiling).all()


def test_attributes_and_types(tree, stores):
    with h5py.File(stores / 'subj01.h5') as file:
        assert file['vertex'].dtype == np.int32 and file['hemisphere'].dtype == np.dtype('S2')
    attributes = ROIStore(stores / 'subj01.h5').attributes
    assert attributes['beta_version'] == 'algonauts2023' and attributes['space'] == 'fsaverage'
    assert attributes['normalization'] == 'as released (z-scored within session, averaged)'
    fmri = 'subj01/training_split/training_fmri/lh_training_fmri.npy'
    sources = attributes['sources'].tolist()
    assert f'{fmri} {(tree / fmri).stat().st_size}' in sources
    assert f'rh.white {(tree / "fsaverage/rh.white").stat().st_size}' in sources


def test_more_images_than_a_block(tmp_path, monkeypatch, tree):
    monkeypatch.setattr('mmnfn.nsd.algonauts_preparation.ROWS_PER_BLOCK', 7)
    path = prepare_subject(AlgonautsLayout(tree), tmp_path, 'subj06', tree / 'fsaverage', progress=False)
    assert (ROIStore(path).responses == slow_store(tree, 'subj06')[1]).all()


def test_the_random_split_is_the_same_for_all_subjects(tree, stores, tmp_path):
    one, two = (ROIStore(stores / f'{subject}.h5') for subject in ('subj01', 'subj06'))
    splits = [dict(zip(store.image_id.tolist(), store.split)) for store in (one, two)]
    common = set(splits[0]) & set(splits[1])
    assert len(common) > 5 and all(splits[0][i] == splits[1][i] for i in common)
    rule = SplitRule(fraction=0.3, seed=4)
    ids = np.arange(5, 20000)
    assert abs(rule.is_test(ids).mean() - 0.3) < 0.02
    assert (rule.is_test(ids)[:500] == rule.is_test(ids[:500])).all()
    assert (rule.is_test(ids) != SplitRule(fraction=0.3, seed=5).is_test(ids)).any()
    layout = AlgonautsLayout(tree)
    path = prepare_subject(layout, tmp_path, 'subj01', tree / 'fsaverage', rule, progress=False)
    again = ROIStore(path)
    assert ((again.split == 'test') == rule.is_test(again.image_id)).all()
    assert '0.3, seed 4' in again.attributes['split_rule']


def test_the_split_of_the_stimulus_table(tree, tmp_path):
    table = write_stim_info(tmp_path / 'nsd_stim_info_merged.csv')
    path = prepare_subject(AlgonautsLayout(tree), tmp_path, 'subj01', tree / 'fsaverage', SplitRule(table), False)
    store = ROIStore(path)
    assert [split == 'test' for split in store.split] == [i % 5 == 0 for i in store.image_id]
    assert 'shared1000' in store.attributes['split_rule']
    assert store.attributes['sources'][-1] == f'{table.name} {table.stat().st_size}'


@pytest.fixture()
def ceilings(tree, tmp_path):
    """The noise ceilings as the challenge published them: a fraction for each vertex, and one that is not known."""
    for subject in ('subj01', 'subj06'):
        for number, (hemisphere, size) in enumerate(CHALLENGE.items()):
            path = AlgonautsLayout.ceiling_file(tmp_path / 'test', subject, hemisphere)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.r_[np.nan, np.linspace(0, 0.8 + 0.1 * number, size - 1)])
    return tmp_path / 'test'


def test_published_noise_ceilings_are_those_of_the_vertices_in_percent(tree, stores, ceilings, tmp_path):
    where = AlgonautsLayout(tree), tmp_path, 'subj01', tree / 'fsaverage'
    found = ROIStore(prepare_subject(*where, progress=False, test_data=ceilings))
    expected = []
    for hemisphere in HEMISPHERES:
        fractions = np.load(AlgonautsLayout.ceiling_file(ceilings, 'subj01', hemisphere))
        masks = [np.load(tree / f'subj01/roi_masks/{hemisphere}.{name}_challenge_space.npy') for name in ROI_CLASSES]
        expected += [100 * fractions[k] for k in range(len(fractions)) if any(mask[k] > 0 for mask in masks)]
    assert np.allclose(found.noise_ceiling, expected, equal_nan=True) and 60 < np.nanmax(expected) <= 90
    assert np.isnan(found.ncsnr).all() and (found.responses == ROIStore(stores / 'subj01.h5').responses).all()
    assert any(source.startswith('rh_noise_ceiling.npy ') for source in found.attributes['sources'])


@pytest.mark.parametrize(
    'spoil, named',
    [
        (lambda path: path.unlink(), 'does not exist'),
        (lambda path: change(path, lambda a: a[1:]), 'has 130 vertices, but .*rh_training_fmri.npy has 131'),
        (lambda path: change(path, lambda a: 100 * a), 'holds 0 to 90; noise ceilings are fractions of variance'),
        (lambda path: change(path, lambda a: a - 0.1), 'holds -0.1 to 0.8; noise ceilings are fractions of variance'),
        (lambda path: change(path, lambda a: a * np.nan), 'holds NaN only; noise ceilings are fractions of variance'),
    ],
)
def test_noise_ceilings_that_do_not_fit_are_named(tree, ceilings, tmp_path, spoil, named):
    spoil(AlgonautsLayout.ceiling_file(ceilings, 'subj06', 'rh'))
    where = AlgonautsLayout(tree), tmp_path / 'store', 'subj06', tree / 'fsaverage'
    with pytest.raises((ValueError, FileNotFoundError), match=f'subj06/.*rh_noise_ceiling.npy {named}'):
        prepare_subject(*where, progress=False, test_data=ceilings)
    assert not (tmp_path / 'store').exists()


def test_stores_of_nsd_are_not_replaced(tree, store, tmp_path):
    """Nor the other way round."""
    own = Path(shutil.copy(store / 'subj01.h5', tmp_path))
    before = as_written(own)
    with pytest.raises(ValueError, match='subj01.h5 is a store of func1pt8mm, and this would replace it by one of fsa'):
        prepare(AlgonautsLayout(tree), tmp_path, ['subj01'], tree / 'fsaverage', progress=False)
    assert as_written(own) == before and list(tmp_path.iterdir()) == [own]


def test_pictures_of_another_subject_stay(tree, stores, tmp_path):
    for subject in ('subj01', 'subj06'):
        path = prepare_images(AlgonautsLayout(tree), tmp_path, [subject], 32, progress=False)
    both, one_by_one = StimulusImages(stores / 'images_32.h5'), StimulusImages(path)
    assert one_by_one.image_id.tolist() == both.image_id.tolist() and one_by_one.source == both.source
    assert all((one_by_one[i] == both[i]).all() for i in both.image_id)


def test_pictures_are_red_where_the_files_are(tree, stores):
    images = StimulusImages(stores / 'images_32.h5')
    ids = sorted({*ROIStore(stores / 'subj01.h5').image_id, *ROIStore(stores / 'subj06.h5').image_id})
    with h5py.File(stores / 'images_32.h5') as file:
        assert file['image_id'][()].tolist() == ids and 'Algonauts' in file.attrs['source']
    for i in ids:
        for y, x in ((0, 0), (3, 30), (31, 31)):
            mean = picture(i)[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((0, 1))
            assert np.abs(images[i][y, x] - mean).max() <= 0.5
        assert images[i][..., 0].mean() > images[i][..., 2].mean() + 100


def test_a_pixel_is_the_mean_of_those_it_stands_for(tree, tmp_path):
    """Sixteen of the file: a filter that looks at four would do for half the size."""
    images = StimulusImages(prepare_images(AlgonautsLayout(tree), tmp_path, ['subj06'], 16, progress=False))
    image_id = int(AlgonautsLayout(tree).images('subj06').image_id[0])
    means = picture(image_id).reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(images[image_id] - means).max() <= 0.51


@pytest.mark.parametrize('suffix', ['.gii', '.gii.gz'])
def test_surfaces_of_freesurfer_and_of_nilearn(tmp_path, suffix):
    write_fsaverage(tmp_path / 'fs/surf')
    for hemisphere, side in (('lh', 'left'), ('rh', 'right')):
        arrays = [
            nib.gifti.GiftiDataArray(positions(hemisphere).astype(np.float32), 'NIFTI_INTENT_POINTSET'),
            nib.gifti.GiftiDataArray(np.asarray([[0, 1, 2]], np.int32), 'NIFTI_INTENT_TRIANGLE'),
        ]
        nib.save(nib.GiftiImage(darrays=arrays), tmp_path / f'white_{side}{suffix}')
    for hemisphere in HEMISPHERES:
        for folder in (tmp_path, tmp_path / 'fs', tmp_path / 'fs/surf'):
            surface = read_white_surface(folder, hemisphere)
            assert len(surface.coordinates) == SURFACE[hemisphere]
            assert np.allclose(surface.coordinates, positions(hemisphere), atol=1e-4)


def test_missing_surfaces_name_both_ways(tree, tmp_path):
    for folder in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match='nsddata/freesurfer/fsaverage/surf.*nilearn'):
            prepare_subject(AlgonautsLayout(tree), tmp_path / 'store', 'subj01', folder, progress=False)
    assert not (tmp_path / 'store').exists()


def test_what_is_legal(copy, tmp_path):
    """Hidden files, a label that the subject lacks, −1 for no cortex, and no number where no ROI is."""
    (copy.image_dir('subj01') / '.DS_Store').touch()
    change(copy.roi_file('subj01', 'lh', 'floc-places'), lambda a: np.where(a == 3, -1, a).astype(np.float64))
    change(copy.roi_file('subj01', 'rh', 'floc-places'), lambda a: np.where(a == 3, 0, a).astype(np.int8))
    np.save(copy.mapping_file('subj01', 'floc-places'), {0: 'Unknown', 1: 'OPA', 2: 'PPA'})
    outside = ~np.any([np.load(copy.roi_file('subj01', 'lh', name)) > 0 for name in ROI_CLASSES], axis=0)
    change(copy.response_file('subj01', 'lh'), lambda a: np.where(outside, np.nan, a))
    path = prepare_subject(copy, tmp_path, 'subj01', copy.root / 'fsaverage', progress=False)
    assert (ROIStore(path).responses == slow_store(copy.root, 'subj01')[1]).all()
