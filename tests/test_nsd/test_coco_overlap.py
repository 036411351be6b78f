"""COCO without NSD's images against a slow loop, and bad input."""

import json

import numpy as np
import pandas as pd
import pytest

from mmnfn.nsd.coco_overlap import nsd_coco_ids, overlap_table, remove_nsd_images


@pytest.fixture()
def table(tmp_path):
    """50 stimuli; the subjects 1, 2 and 3 see some of them, subject 4 none."""
    rng = np.random.default_rng(1)
    columns = dict(
        cocoId=rng.permutation(200)[:50], cocoSplit=rng.choice(['train2017', 'val2017'], 50), nsdId=np.arange(50)
    )
    columns.update({f'subject{n}': (rng.random(50) < 0.3).astype(int) for n in (1, 2, 3)}, subject4=0)
    pd.DataFrame(columns).to_csv(tmp_path / 'nsd_stim_info_merged.csv')
    return tmp_path / 'nsd_stim_info_merged.csv'


@pytest.fixture()
def annotations(tmp_path):
    """Instances of 120 images with 0 to 3 annotations each."""
    rng = np.random.default_rng(2)
    images = [dict(id=int(i), file_name=f'{i:012d}.jpg', height=5) for i in rng.permutation(200)[:120]]
    entries = [dict(id=7 * i['id'] + k, image_id=i['id'], area=0.1 * k) for i in images for k in range(i['id'] % 4)]
    content = dict(info=dict(year=2017), licenses=[], images=images, annotations=entries, categories=[dict(id=1)])
    (tmp_path / 'instances_train2017.json').write_text(json.dumps(content))
    return tmp_path / 'instances_train2017.json'


def slow_ids(table, subjects=None):
    ids = {'train2017': [], 'val2017': []}
    for _, row in pd.read_csv(table).iterrows():
        if subjects is None or any(row[f'subject{n}'] == 1 for n in subjects):
            ids[row.cocoSplit].append(int(row.cocoId))
    return {split: sorted(found) for split, found in ids.items()}


def slow_rest(content, ids):
    rest = dict(content, images=[], annotations=[])
    for image in content['images']:
        if image['id'] not in ids:
            rest['images'].append(image)
    for entry in content['annotations']:
        if entry['image_id'] not in ids:
            rest['annotations'].append(entry)
    return rest


@pytest.mark.parametrize('subjects', [None, (1,), (2, 3)])
def test_ids_against_a_slow_loop(table, subjects):
    ids = nsd_coco_ids(table, None if subjects is None else [f'subj{n:02d}' for n in subjects])
    assert ids == slow_ids(table, subjects) and all(ids.values())
    assert all(type(i) is int for found in ids.values() for i in found)


def test_copies_against_a_slow_loop(table, annotations, tmp_path):
    ids = {i for found in nsd_coco_ids(table).values() for i in found}
    before = annotations.read_bytes()
    (result,) = remove_nsd_images([annotations], ids, tmp_path / 'out')
    assert result.written == tmp_path / 'out/instances_train2017_without_nsd.json'
    content, copy = json.loads(before), json.loads(result.written.read_text())
    assert copy == slow_rest(content, ids) and list(copy) == list(content)
    assert (result.images, result.images_left) == (120, len(copy['images']))
    assert (result.annotations, result.annotations_left) == (len(content['annotations']), len(copy['annotations']))
    assert 0 < result.images_left < 120 and annotations.read_bytes() == before
    assert [path.name for path in result.written.parent.iterdir()] == [result.written.name]


def test_an_image_is_removed_whatever_its_split(annotations, tmp_path):
    """An id that NSD took from val2017 goes from any file that has it."""
    removed = json.loads(annotations.read_text())['images'][5]['id']
    table = pd.DataFrame(dict(cocoId=[removed, 999], cocoSplit=['val2017', 'train2017']))
    table.to_csv(tmp_path / 'info.csv')
    ids = nsd_coco_ids(tmp_path / 'info.csv')
    (result,) = remove_nsd_images([annotations], {*ids['train2017'], *ids['val2017']})
    assert result.images - result.images_left == 1 and result.written is None


def test_the_table_of_counts(table, annotations):
    ids = nsd_coco_ids(table)
    (result,) = remove_nsd_images([annotations], {*ids['train2017'], *ids['val2017']})
    lines = overlap_table(ids, [result]).splitlines()
    train, val = len(ids['train2017']), len(ids['val2017'])
    assert lines[0] == f'images used by NSD: 50 ({train} of train2017, {val} of val2017)'
    counts = [120, 120 - result.images_left, result.images_left, result.annotations, result.annotations_left]
    assert lines[2].split() == ['instances_train2017.json', *map(str, counts)]
    assert overlap_table(ids, []) == lines[0]


def test_existing_copies_are_kept_unless_asked(table, annotations, tmp_path):
    other = tmp_path / 'captions_train2017.json'
    other.write_bytes(annotations.read_bytes())
    copy = tmp_path / 'out/captions_train2017_without_nsd.json'
    copy.parent.mkdir()
    copy.write_text('mine')
    with pytest.raises(ValueError, match='captions_train2017_without_nsd.json exists.*--overwrite'):
        remove_nsd_images([annotations, other], {1}, tmp_path / 'out')
    assert copy.read_text() == 'mine' and list(copy.parent.iterdir()) == [copy]
    remove_nsd_images([annotations, other], {1}, tmp_path / 'out', overwrite=True)
    assert len(json.loads(copy.read_text())['images']) in (119, 120)


def test_nothing_is_left_after_an_error(annotations, tmp_path, monkeypatch):
    copy = tmp_path / 'out/instances_train2017_without_nsd.json'
    copy.parent.mkdir()
    copy.write_text('mine')
    monkeypatch.setattr('pathlib.Path.replace', lambda self, target: (_ for _ in ()).throw(OSError('no space')))
    with pytest.raises(OSError, match='no space'):
        remove_nsd_images([annotations], {1}, tmp_path / 'out', overwrite=True)
    assert copy.read_text() == 'mine' and list(copy.parent.iterdir()) == [copy]


def test_two_files_of_one_name(annotations, tmp_path):
    (tmp_path / 'b').mkdir()
    other = tmp_path / 'b' / annotations.name
    other.write_bytes(annotations.read_bytes())
    with pytest.raises(ValueError, match='two files would be written as instances_train2017_without_nsd.json'):
        remove_nsd_images([annotations, other], {1}, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'content, named',
    [
        (None, 'does not exist'),
        ('{', 'is no JSON file'),
        ('[]', "has no list 'images'"),
        ('{"images": [], "annotations": 3}', "has no list 'annotations'"),
        ('{"images": [{"name": 1}], "annotations": []}', "'images' has no 'id'"),
        ('{"images": [{"id": "7"}], "annotations": []}', "'images' has no 'id' that is a whole number"),
        ('{"images": [{"id": 7}], "annotations": [{"id": 1}]}', "'annotations' has no 'image_id'"),
        ('{"images": [7], "annotations": []}', "'images' has no 'id'"),
    ],
)
def test_bad_annotations_are_named(tmp_path, content, named):
    path = tmp_path / 'keypoints.json'
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=f'keypoints.json.*{named}'):
        remove_nsd_images([path], {1}, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_bad_tables_are_named(table, tmp_path):
    with pytest.raises(ValueError, match='nsd_stim_info_merged.csv names no image that subj04 sees'):
        nsd_coco_ids(table, ['subj01', 'subj04'])
    with pytest.raises(ValueError, match=r'nsd_stim_info_merged.csv lacks the column\(s\) subject8'):
        nsd_coco_ids(table, ['subj08'])
    with pytest.raises(FileNotFoundError, match='nowhere.csv does not exist'):
        nsd_coco_ids(tmp_path / 'nowhere.csv')


def test_real_instances(real_data, tmp_path):
    """Four of the 128 images are among the shared ones of NSD; crowd masks and polygons come through as they are."""
    used = [584, 605, 625, 650]
    table = pd.DataFrame(dict(cocoId=list(used), cocoSplit='train2017', nsdId=range(4)))
    table.to_csv(tmp_path / 'info.csv')
    ids = nsd_coco_ids(tmp_path / 'info.csv')
    assert ids == {'train2017': sorted(used), 'val2017': []}
    path = real_data / 'coco128/annotations/instances_train2017.json'
    (result,) = remove_nsd_images([path], ids['train2017'], tmp_path)
    assert (result.images, result.images_left) == (128, 124)
    assert json.loads(result.written.read_text()) == slow_rest(json.loads(path.read_text()), set(used))
