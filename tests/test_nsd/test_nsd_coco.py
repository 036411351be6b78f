"""Captions of NSD's stimuli, COCO without NSD's images, and instances files: slow loops, and bad input."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from mmnfn.nsd.coco import captions_by_image, nsd_coco_ids, read_instances, remove_nsd_images, require_masks

SPLITS = ('train2017', 'val2017')


@pytest.fixture()
def files(tmp_path):
    """A table of 30 stimuli in random order, a third of them of val2017, and the captions of twice as many images.

    Subjects 1, 2 and 3 see some of the stimuli, subject 4 none.
    """
    rng = np.random.default_rng(0)
    ids = rng.permutation(30)
    coco = rng.permutation(1000)[:60]
    table = pd.DataFrame(dict(cocoId=coco[:30], cocoSplit=np.where(ids % 3, *SPLITS), nsdId=ids, flagged=False))
    seen = {f'subject{n}': (rng.random(30) < 0.4).astype(int) for n in (1, 2, 3)}
    table.assign(**seen, subject4=0).to_csv(tmp_path / 'info.csv')
    for split in SPLITS:
        images = [*table.cocoId[table.cocoSplit == split].tolist(), *coco[30:].tolist()]
        entries = [
            dict(id=10 * i + k, image_id=int(i), caption=f'Image {i} of {split}, caption {k}.\n ' + ' ' * k)
            for i in images
            for k in range(5 + i % 2)
        ]
        write_captions(tmp_path / f'captions_{split}.json', [entries[k] for k in rng.permutation(len(entries))])
    return tmp_path


def write_captions(path, entries):
    path.write_text(json.dumps(dict(info={}, images=[], annotations=entries)))


def slow_captions(folder, image_id):
    rows = [row for _, row in pd.read_csv(folder / 'info.csv').iterrows() if row.nsdId == image_id]
    entries = json.loads((folder / f'captions_{rows[0].cocoSplit}.json').read_text())['annotations']
    return [entry['caption'].strip() for entry in entries if entry['image_id'] == rows[0].cocoId]


def test_captions_equal_a_slow_loop(files):
    captions = captions_by_image(files / 'info.csv', files)
    assert sorted(captions) == list(range(30)) and all(type(i) is int for i in captions)
    for i, found in captions.items():
        assert len(found) in (5, 6) and found == slow_captions(files, i)


def test_captions_are_also_found_in_the_folder_annotations(files):
    captions = captions_by_image(files / 'info.csv', files)
    (files / 'annotations').mkdir()
    shutil.move(files / 'captions_train2017.json', files / 'annotations')
    assert captions_by_image(str(files / 'info.csv'), str(files)) == captions
    (files / 'captions_val2017.json').unlink()
    with pytest.raises(FileNotFoundError, match='captions_val2017.json nor .*annotations/captions_val2017.json'):
        captions_by_image(files / 'info.csv', files)


def edit(files, function):
    function(pd.read_csv(files / 'info.csv', index_col=0)).to_csv(files / 'info.csv')


def lose_captions(files):
    path, table = files / 'captions_val2017.json', pd.read_csv(files / 'info.csv').set_index('nsdId')
    entries = json.loads(path.read_text())['annotations']
    blank = [dict(e, caption='  ') if e['image_id'] == table.cocoId[9] else e for e in entries]
    write_captions(path, [e for e in blank if e['image_id'] != table.cocoId[24]])


def captions_of(entry):
    return lambda files: write_captions(files / 'captions_train2017.json', [dict(entry, image_id=5)])


BAD = {
    'info.csv cannot be read': lambda f: (f / 'info.csv').write_text(''),
    r'lacks the column\(s\) cocoId': lambda f: edit(f, lambda t: t.rename(columns=dict(cocoId='coco'))),
    'nsdId goes from 1 to 30; NSD counts its 30': lambda f: edit(f, lambda t: t.assign(nsdId=t.nsdId + 1)),
    "cocoSplit is 'test2017'": lambda f: edit(f, lambda t: t.assign(cocoSplit='test2017')),
    'captions_train2017.json is no JSON': lambda f: (f / 'captions_train2017.json').write_text('{"annotations": ['),
    'an annotation of image 5 has no caption': captions_of(dict(bbox=[0, 0, 1, 1])),
    r'captions_val2017.json has no caption of 2 image\(s\), nsdId .* (9, 24|24, 9), cocoId': lose_captions,
}


@pytest.mark.parametrize('named', BAD)
def test_bad_tables_and_captions_are_named(files, named):
    BAD[named](files)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        captions_by_image(files / 'info.csv', files)


def test_shared_images_are_those_of_the_design_beside_the_table(world, tmp_path):
    """Ids that are all there, and moved by one: only the design can tell."""
    experiment = world / 'nsd/nsddata/experiments/nsd'
    table = pd.read_csv(experiment / 'nsd_stim_info_merged.csv', index_col=0)
    path = tmp_path / 'nsd_stim_info_merged.csv'
    table.assign(nsdId=np.roll(table.nsdId, -1)).to_csv(path)
    assert len(captions_by_image(path, world / 'coco_stimuli')) == 950
    shutil.copy(experiment / 'nsd_expdesign.mat', tmp_path)
    with pytest.raises(ValueError, match=r'shared1000 differs from sharedix of .*nsd_expdesign.mat for \d+ image'):
        captions_by_image(path, world / 'coco_stimuli')


@pytest.fixture()
def annotations(tmp_path):
    """Instances of 500 images with 0 to 3 annotations each."""
    rng = np.random.default_rng(2)
    images = [dict(id=int(i), file_name=f'{i:012d}.jpg', height=5) for i in rng.permutation(1000)[:500]]
    entries = [dict(id=7 * i['id'] + k, image_id=i['id'], area=0.1 * k) for i in images for k in range(i['id'] % 4)]
    content = dict(info=dict(year=2017), licenses=[], images=images, annotations=entries, categories=[dict(id=1)])
    (tmp_path / 'instances_train2017.json').write_text(json.dumps(content))
    return tmp_path / 'instances_train2017.json'


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
def test_ids_equal_a_slow_loop(files, subjects):
    expected = {split: [] for split in SPLITS}
    for _, row in pd.read_csv(files / 'info.csv').iterrows():
        if subjects is None or any(row[f'subject{n}'] == 1 for n in subjects):
            expected[row.cocoSplit].append(int(row.cocoId))
    ids = nsd_coco_ids(files / 'info.csv', subjects and [f'subj{n:02d}' for n in subjects])
    assert ids == {split: sorted(found) for split, found in expected.items()} and all(ids.values())


def test_copies_equal_a_slow_loop(files, annotations):
    """Images are removed whichever split NSD took them from."""
    ids = {i for found in nsd_coco_ids(files / 'info.csv').values() for i in found}
    before = annotations.read_bytes()
    row = remove_nsd_images([annotations], ids, files / 'out').iloc[0]
    assert row.written == files / 'out/instances_train2017_without_nsd.json'
    content, copy = json.loads(before), json.loads(row.written.read_text())
    assert copy == slow_rest(content, ids) and list(copy) == list(content)
    assert row.tolist()[1:4] == [500, 500 - len(copy['images']), len(copy['images'])] and 0 < row['used by NSD'] <= 30
    assert row.tolist()[4:6] == [len(content['annotations']), len(copy['annotations'])]
    assert annotations.read_bytes() == before and list(row.written.parent.iterdir()) == [row.written]


@pytest.mark.parametrize(
    'content, named',
    [('{', 'is no JSON file'), ('{"images": [{"id": "7"}], "annotations": []}', "'images' has no whole number 'id'")],
)
def test_bad_annotations_are_named(tmp_path, content, named):
    path = tmp_path / 'keypoints.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=f'keypoints.json.*{named}'):
        remove_nsd_images([path], {1}, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_subjects_without_images_are_named(files):
    with pytest.raises(ValueError, match='info.csv names no image that subj04 sees'):
        nsd_coco_ids(files / 'info.csv', ['subj01', 'subj04'])


def drop(name, field):
    return lambda content: content[name][1].pop(field)


def change(name, **fields):
    return lambda content: content[name][1].update(fields)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (drop('annotations', 'area'), "'area' is missing in annotations, id 8"),
        (drop('images', 'height'), "'height' is missing in images, id 2"),
        (change('annotations', bbox=[]), "'bbox' is missing in annotations, id 8"),
        (change('annotations', id=7), 'two annotations have the id 7'),
        (change('images', id=1), 'two images have the id 1'),
        (change('annotations', image_id='2'), "annotation 8 has image_id '2', and images have ids like 1"),
        (change('annotations', category_id=4), 'annotation 8 has category_id 4'),
        (
            change('annotations', segmentation=dict(size=[40, 60], counts=[0, 2400])),
            r'annotation 8 has a mask of \[40, 60\] .* image 2 has \[60, 40\]',
        ),
        (lambda content: content.pop('images'), "has no lists 'images' and 'categories'"),
    ],
)
def test_instances_that_would_be_read_wrongly_are_named(tmp_path, damage, message):
    content = dict(
        images=[dict(id=i, width=40, height=60, file_name=f'{i}.jpg') for i in (1, 2)],
        categories=[dict(id=3, name='cat'), dict(id=5, name='dog')],
        annotations=[dict(id=6 + i, image_id=i, category_id=3, bbox=[0, 0, 4, 4], area=16) for i in (1, 2)],
    )
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(content))
    assert read_instances(path) == content
    with pytest.raises(ValueError, match="'segmentation' is missing in annotations, id 7.*metric='bbox'"):
        require_masks(content, path)
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'instances.json.*{message}'):
        read_instances(path)
