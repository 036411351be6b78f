"""ROI stores of the Algonauts 2023 data against a slow loop, and bad input."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from algonauts_tree import (
    CHALLENGE,
    SURFACE,
    ceiling,
    change,
    image_dir,
    mask,
    pixels,
    positions,
    responses,
    write_fsaverage,
    write_stim_info,
    write_tree,
)
from PIL import Image
from same import as_written

from mmnfn.nsd import ROIStore, StimulusImages
from mmnfn.nsd.algonauts import SplitRule, prepare, read_white_surface
from mmnfn.nsd.release import HEMISPHERES, ROI_CLASSES, ROI_LABELS


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp('algonauts') / 'data')


@pytest.fixture(scope='module')
def stores(tree, tmp_path_factory):
    """Stores of both subjects and their images at 32 pixels."""
    out = tmp_path_factory.mktemp('stores')
    make(tree, out, None, image_size=32)
    return out


def make(root, store, subject='subj01', **options):
    """Prepare one subject; the first file that was written."""
    options = dict(dict(fsaverage=root / 'fsaverage', progress=False), **options)
    return prepare(root, store, subject and [subject], **options)[0]


@pytest.fixture()
def copy(tree, tmp_path):
    """A copy of the tree that a test may damage."""
    return shutil.copytree(tree, tmp_path / 'data')


def slow_store(root, subject):
    """Ids, responses, coordinates, vertices, hemispheres, classes and labels of the vertices, vertex by vertex."""
    rows = {}
    for name in os.listdir(image_dir(root, subject)):
        if name.startswith('train-'):
            rows[int(name[-9:-4])] = int(name[6:10]) - 1
    columns, places, classes = [], [], []
    for hemisphere in ('lh', 'rh'):
        values = np.load(responses(root, hemisphere, subject))
        every = np.load(mask(root, hemisphere, 'all-vertices', subject))
        labels = {c: np.load(mask(root, hemisphere, c, subject)) for c in ROI_CLASSES}
        k = -1
        for vertex in range(len(every)):
            if every[vertex]:
                k += 1
                mine = {c: ROI_LABELS[c][int(labels[c][k]) - 1] for c in ROI_CLASSES if labels[c][k] > 0}
                if mine:
                    columns.append([values[rows[i], k] for i in sorted(rows)])
                    places.append((hemisphere, vertex, *positions(hemisphere)[vertex]))
                    classes.append(mine)
    return sorted(rows), np.asarray(columns).T, places, classes


@pytest.mark.parametrize('subject, images', [('subj01', 40), ('subj06', 33)])
def test_store_equals_a_slow_loop(tree, tmp_path, monkeypatch, subject, images):
    monkeypatch.setattr('mmnfn.nsd.algonauts.ROWS_PER_BLOCK', 7)
    ids, values, places, classes = slow_store(tree, subject)
    store = ROIStore(make(tree, tmp_path, subject))
    assert store.subject == subject and len(ids) == images and store.image_id.tolist() == ids
    assert store.responses.dtype == np.float32 and (store.responses == values).all()
    assert store.hemisphere.tolist() == [place[0] for place in places]
    assert store.location['vertex'].tolist() == [place[1] for place in places]
    assert np.allclose(store.coordinates, [place[2:] for place in places], atol=1e-4)
    for name in ROI_CLASSES:
        assert store.roi(name).tolist() == [k for k, mine in enumerate(classes) if name in mine]
        for label in ROI_LABELS[name]:
            own = [k for k, mine in enumerate(classes) if mine.get(name) == label]
            assert store.roi(label).tolist() == store.roi(name, label).tolist() == own
            assert store.roi(f'rh.{label}').tolist() == [k for k in own if places[k][0] == 'rh']
    assert (store.repeats == 0).all() and not store.seen_by_all.any()
    assert np.isnan(store.ncsnr).all() and np.isnan(store.noise_ceiling).all()
    assert store.attributes['beta_version'] == 'algonauts2023' and store.attributes['space'] == 'fsaverage'
    files = responses(tree, 'lh', subject), mask(tree, 'rh', 'streams', subject), tree / 'fsaverage/rh.white'
    assert {f'{file.name} {file.stat().st_size}' for file in files} <= set(store.attributes['sources'].tolist())


def test_random_split_is_the_same_for_all_subjects(tree, stores, tmp_path):
    one, two = (ROIStore(stores / f'{subject}.h5') for subject in ('subj01', 'subj06'))
    splits = [dict(zip(store.image_id.tolist(), store.split)) for store in (one, two)]
    common = set(splits[0]) & set(splits[1])
    assert len(common) > 5 and all(splits[0][i] == splits[1][i] for i in common)
    rule = SplitRule(fraction=0.3, seed=4)
    ids = np.arange(5, 20000)
    assert abs(rule.is_test(ids).mean() - 0.3) < 0.02
    assert (rule.is_test(ids)[:500] == rule.is_test(ids[:500])).all()
    assert (rule.is_test(ids) != SplitRule(fraction=0.3, seed=5).is_test(ids)).any()
    again = ROIStore(make(tree, tmp_path, split=rule))
    assert ((again.split == 'test') == rule.is_test(again.image_id)).all()
    assert '0.3, seed 4' in again.attributes['split_rule']


def test_split_of_the_stimulus_table_is_its_shared_images(tree, tmp_path):
    table = write_stim_info(tmp_path / 'nsd_stim_info_merged.csv')
    store = ROIStore(make(tree, tmp_path, split=SplitRule(table)))
    assert [split == 'test' for split in store.split] == [i % 5 == 0 for i in store.image_id]
    assert 'shared1000' in store.attributes['split_rule']
    assert store.attributes['sources'][-1] == f'{table.name} {table.stat().st_size}'


@pytest.fixture()
def ceilings(tmp_path):
    """Noise ceilings as the challenge published them: a fraction for each vertex, and one that is not known."""
    for subject in ('subj01', 'subj06'):
        for number, (hemisphere, size) in enumerate(CHALLENGE.items()):
            path = ceiling(tmp_path / 'test', subject, hemisphere)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.r_[np.nan, np.linspace(0, 0.8 + 0.1 * number, size - 1)])
    return tmp_path / 'test'


def test_published_noise_ceilings_are_stored_in_percent(tree, ceilings, tmp_path):
    found = ROIStore(make(tree, tmp_path, test_data=ceilings))
    expected = []
    for hemisphere in HEMISPHERES:
        fractions = np.load(ceiling(ceilings, 'subj01', hemisphere))
        masks = [np.load(mask(tree, hemisphere, name)) for name in ROI_CLASSES]
        expected += [100 * fractions[k] for k in range(len(fractions)) if any(labels[k] > 0 for labels in masks)]
    assert np.allclose(found.noise_ceiling, expected, equal_nan=True) and 60 < np.nanmax(expected) <= 90
    assert any(source.startswith('rh_noise_ceiling.npy ') for source in found.attributes['sources'])


def test_noise_ceilings_in_percent_are_refused(tree, ceilings, tmp_path):
    change(ceiling(ceilings, 'subj06', 'rh'), lambda a: 100 * a)
    with pytest.raises(ValueError, match='subj06/.*rh_noise_ceiling.npy holds 0 to 90, not fractions of variance'):
        make(tree, tmp_path / 'store', 'subj06', test_data=ceilings)
    assert not (tmp_path / 'store').exists()


def test_stores_of_nsd_are_not_replaced(tree, store, tmp_path):
    own = Path(shutil.copy(store / 'subj01.h5', tmp_path))
    before = as_written(own)
    with pytest.raises(ValueError, match='subj01.h5 is a store of func1pt8mm, and this would replace it by one of fsa'):
        make(tree, tmp_path)
    assert as_written(own) == before and list(tmp_path.iterdir()) == [own]


def test_images_are_averaged_and_keep_their_colours(tree, stores, tmp_path):
    images = StimulusImages(stores / 'images_32.h5')
    ids = sorted({*ROIStore(stores / 'subj01.h5').image_id, *ROIStore(stores / 'subj06.h5').image_id})
    assert images.image_id.tolist() == ids and 'Algonauts' in images.source
    make(tree, tmp_path, 'subj06', image_size=16)
    small = StimulusImages(tmp_path / 'images_16.h5')
    for found in (images, small):
        for i in found.image_id:
            parts = pixels(i).reshape(found.size, 64 // found.size, found.size, 64 // found.size, 3)
            assert np.abs(found[i] - parts.mean((1, 3))).max() <= 0.51


@pytest.mark.parametrize('suffix', ['.gii', '.gii.gz'])
def test_surfaces_of_freesurfer_and_of_nilearn(tmp_path, suffix):
    write_fsaverage(tmp_path / 'fs/surf')
    for hemisphere, side in (('lh', 'left'), ('rh', 'right')):
        arrays = [
            nib.gifti.GiftiDataArray(positions(hemisphere).astype(np.float32), 'NIFTI_INTENT_POINTSET'),
            nib.gifti.GiftiDataArray(np.asarray([[0, 1, 2]], np.int32), 'NIFTI_INTENT_TRIANGLE'),
        ]
        nib.save(nib.GiftiImage(darrays=arrays), tmp_path / f'white_{side}{suffix}')
        for folder in (tmp_path, tmp_path / 'fs', tmp_path / 'fs/surf'):
            _, coordinates = read_white_surface(folder, hemisphere)
            assert coordinates.shape == (SURFACE[hemisphere], 3) and coordinates.dtype == np.float32
            assert np.allclose(coordinates, positions(hemisphere), atol=1e-4)


@pytest.mark.parametrize('name, content', [('lh.white', b'\xff\xff\xfe'), ('white_left.gii', b'<GIFTI')])
def test_damaged_surfaces_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f'{name} cannot be read as a surface: .*nilearn'):
        read_white_surface(tmp_path, 'lh')


def test_hidden_files_missing_labels_and_nan_outside_rois_are_legal(copy, tmp_path):
    (image_dir(copy) / '.DS_Store').touch()
    change(mask(copy, 'lh', 'floc-places'), lambda a: np.where(a == 3, -1, a).astype(np.float64))
    change(mask(copy, 'rh', 'floc-places'), lambda a: np.where(a == 3, 0, a).astype(np.int8))
    outside = ~np.any([np.load(mask(copy, 'lh', name)) > 0 for name in ROI_CLASSES], axis=0)
    change(responses(copy, 'lh'), lambda a: np.where(outside, np.nan, a))
    assert (ROIStore(make(copy, tmp_path)).responses == slow_store(copy, 'subj01')[1]).all()


def spoil_value(root):
    values = np.load(responses(root, 'lh'))
    values[7, np.flatnonzero(np.load(mask(root, 'lh', 'streams')))[0]] = np.nan
    np.save(responses(root, 'lh'), values)


def rename(root, old, new):
    path = next(image_dir(root).glob(old))
    path.rename(path.with_name(new.format(id=path.name[-9:-4])))


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


DAMAGES = {
    'rh.floc-words_challenge_space.npy does not exist': lambda t: mask(t, 'rh', 'floc-words').unlink(),
    'training_images does not exist': lambda t: shutil.rmtree(image_dir(t)),
    'lh_training_fmri.npy cannot be read': lambda t: cut(responses(t, 'lh')),
    'lh_training_fmri.npy: 1 .* not finite, the first is nan in row 8': spoil_value,
    'has 131 vertices.* has 130': lambda t: change(responses(t, 'rh'), lambda a: a[:, 1:]),
    'streams_.*.npy has 119 vertices.* 120': lambda t: change(mask(t, 'lh', 'streams'), lambda a: a[1:]),
    'lh.white has 300 vertices.* 301': lambda t: change(mask(t, 'lh', 'all-vertices'), lambda a: np.r_[a, 0]),
    'rh.* has 39 rows.* has 40 images': lambda t: change(responses(t, 'rh'), lambda a: a[1:]),
    'lh.floc-places.* holds the label 4': lambda t: change(mask(t, 'lh', 'floc-places'), lambda a: a + 1),
    'train-0003_coco-00013.png does not look like': lambda t: rename(t, 'train-0003_*', 'train-0003_coco-00013.png'),
    'no image of row 3': lambda t: rename(t, 'train-0003_*', 'train-0041_nsd-{id}.png'),
    'two of row 3: ': lambda t: rename(t, 'train-0004_*', 'train-0003_nsd-{id}.png'),
}


@pytest.mark.parametrize('named', DAMAGES)
def test_bad_input_is_named_and_nothing_is_left(copy, named, tmp_path):
    DAMAGES[named](copy)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        make(copy, tmp_path / 'store')
    assert not (tmp_path / 'store').exists() or list((tmp_path / 'store').iterdir()) == []


@pytest.mark.parametrize('content, named', [('cut', 'cannot be read'), ('wide', '64x32 pixels')])
def test_bad_images_are_named_and_nothing_is_left(copy, tmp_path, content, named):
    path = next(image_dir(copy, 'subj06').glob('train-0002_*'))
    if content == 'wide':
        Image.fromarray(pixels(3)[:32]).save(path)
    else:
        path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=f'{path.name} .*{named}'):
        make(copy, tmp_path / 'store', 'subj06', image_size=32)
    assert [file.name for file in (tmp_path / 'store').iterdir()] == ['subj06.h5']
