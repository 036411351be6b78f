"""Captions of NSD's stimuli against a slow loop, and bad input."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from mmnfn.nsd.algonauts_preparation import SplitRule
from mmnfn.nsd.captions import captions_by_image
from mmnfn.nsd.coco_overlap import nsd_coco_ids
from mmnfn.nsd.design import read_stim_info

SPLITS = ('train2017', 'val2017')


@pytest.fixture()
def files(tmp_path):
    """A table of 30 stimuli in random order, a third of them of val2017, and the captions of twice as many images."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(30)
    coco = rng.permutation(1000)[:60]
    table = pd.DataFrame(dict(cocoId=coco[:30], cocoSplit=np.where(ids % 3, *SPLITS), nsdId=ids, flagged=False))
    table.to_csv(tmp_path / 'nsd_stim_info_merged.csv')
    for split in SPLITS:
        images = [*table.cocoId[table.cocoSplit == split].tolist(), *coco[30:].tolist()]
        entries = [
            dict(id=10 * i + k, image_id=int(i), caption=f'Picture {i} of {split}, caption {k}.\n ' + ' ' * k)
            for i in images
            for k in range(5 + i % 2)
        ]
        entries = [entries[k] for k in rng.permutation(len(entries))]
        write(tmp_path / f'captions_{split}.json', entries)
    return tmp_path


def write(path, entries):
    path.write_text(json.dumps(dict(info={}, images=[], annotations=entries)))


def slow_captions(folder, image_id):
    rows = [row for _, row in pd.read_csv(folder / 'nsd_stim_info_merged.csv').iterrows() if row.nsdId == image_id]
    entries = json.loads((folder / f'captions_{rows[0].cocoSplit}.json').read_text())['annotations']
    return [entry['caption'].strip() for entry in entries if entry['image_id'] == rows[0].cocoId]


def test_captions_against_a_slow_loop(files):
    captions = captions_by_image(files / 'nsd_stim_info_merged.csv', files)
    assert sorted(captions) == list(range(30)) and all(type(i) is int for i in captions)
    for i, found in captions.items():
        assert len(found) in (5, 6) and found == slow_captions(files, i)


def test_some_images_in_the_order_asked_for(files):
    wanted = np.asarray([7, 3, 21, 3, 8])
    captions = captions_by_image(str(files / 'nsd_stim_info_merged.csv'), str(files), wanted)
    assert list(captions) == [7, 3, 21, 8]
    assert all(captions[i] == slow_captions(files, i) for i in captions)
    assert captions_by_image(files / 'nsd_stim_info_merged.csv', files, []) == {}


def test_two_stimuli_of_one_image_do_not_share_a_list(files):
    path = files / 'nsd_stim_info_merged.csv'
    table = pd.read_csv(path, index_col=0)
    same = table.index[(table.cocoSplit == 'train2017')][:2]
    table.loc[same[1], 'cocoId'] = table.loc[same[0], 'cocoId']
    table.to_csv(path)
    one, two = captions_by_image(path, files, table.nsdId[same]).values()
    assert one == two and one is not two


def test_only_the_files_needed_are_read(files):
    (files / 'captions_val2017.json').unlink()
    table = files / 'nsd_stim_info_merged.csv'
    train = [i for i in range(30) if i % 3]
    assert list(captions_by_image(table, files, train)) == train
    with pytest.raises(FileNotFoundError, match='captions_val2017.json nor .*annotations/captions_val2017.json'):
        captions_by_image(table, files, [1, 3])


def test_captions_in_the_folder_annotations(files):
    table = files / 'nsd_stim_info_merged.csv'
    direct = captions_by_image(table, files)
    (files / 'annotations').mkdir()
    for split in SPLITS:
        (files / f'captions_{split}.json').rename(files / f'annotations/captions_{split}.json')
    assert captions_by_image(table, files) == direct


def test_captions_of_the_simulated_world(world):
    info = read_stim_info(world / 'nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv', ['nsdId'])
    captions = captions_by_image(world / 'nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv', world / 'coco_stimuli')
    assert list(captions) == info.nsdId.tolist() and {len(found) for found in captions.values()} == {5}


def damage_table_missing(files):
    (files / 'nsd_stim_info_merged.csv').unlink()
    return 'nsd_stim_info_merged.csv does not exist'


def damage_table_empty(files):
    (files / 'nsd_stim_info_merged.csv').write_text('')
    return 'nsd_stim_info_merged.csv cannot be read'


def damage_table_binary(files):
    (files / 'nsd_stim_info_merged.csv').write_bytes(bytes(range(256)))
    return 'nsd_stim_info_merged.csv'


def edit(files, function):
    path = files / 'nsd_stim_info_merged.csv'
    function(pd.read_csv(path, index_col=0)).to_csv(path)


def damage_table_column(files):
    edit(files, lambda table: table.rename(columns=dict(cocoId='coco')))
    return r'lacks the column\(s\) cocoId'


def damage_table_id(files):
    edit(files, lambda table: table.assign(cocoId=table.cocoId.where(table.cocoId > table.cocoId.min())))
    return 'cannot be read as a table'


def damage_table_twice(files):
    edit(files, lambda table: table.assign(nsdId=table.nsdId // 2))
    return 'nsdId goes from .*, each once'


def damage_table_from_one(files):
    edit(files, lambda table: table.assign(nsdId=table.nsdId + 1))
    return 'nsdId goes from 1 to 30; NSD counts its 30 stimuli from 0 to 29'


def damage_table_split(files):
    edit(files, lambda table: table.assign(cocoSplit='test2017'))
    return "cocoSplit is 'test2017'"


def damage_no_json(files):
    (files / 'captions_train2017.json').write_text('{"annotations": [')
    return 'captions_train2017.json is no JSON'


def damage_no_annotations(files):
    (files / 'captions_train2017.json').write_text('[]')
    return "captions_train2017.json has no list 'annotations'"


def damage_instances(files):
    write(files / 'captions_train2017.json', [dict(image_id=i, bbox=[0, 0, 1, 1]) for i in range(1000)])
    return 'captions_train2017.json: an annotation of image .* has no caption'


def damage_ids_as_text(files):
    write(files / 'captions_train2017.json', [dict(image_id=str(i), caption='A dog.') for i in range(1000)])
    return "captions_train2017.json: an entry of 'annotations' has no 'image_id' that is a whole number"


def damage_some_missing(files):
    path = files / 'captions_val2017.json'
    table = pd.read_csv(files / 'nsd_stim_info_merged.csv').set_index('nsdId')
    entries = json.loads(path.read_text())['annotations']
    gone = {table.cocoId[3], table.cocoId[24]}
    blank = {table.cocoId[9]}
    write(path, [dict(e, caption='  ') if e['image_id'] in blank else e for e in entries if e['image_id'] not in gone])
    order = [i for i in table.index if i in (3, 9, 24)]
    ids = ', '.join(str(table.cocoId[i]) for i in order)
    return rf'captions_val2017.json has no caption of 3 image\(s\), .* {", ".join(map(str, order))}, cocoId {ids}'


@pytest.mark.parametrize('damage', [f for n, f in sorted(globals().items()) if n.startswith('damage_')])
def test_bad_input_is_named(files, damage):
    named = damage(files)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        captions_by_image(files / 'nsd_stim_info_merged.csv', files)


def test_ids_from_one_are_refused_whoever_reads_the_table(files):
    """The caption of image 7 would be that of 6, and the shared images of the Algonauts data others."""
    edit(files, lambda table: table.assign(nsdId=table.nsdId + 1, shared1000=table.nsdId < 9))
    path = files / 'nsd_stim_info_merged.csv'
    for read in (lambda: captions_by_image(path, files, [7]), lambda: SplitRule(path).is_test(np.arange(1, 20))):
        with pytest.raises(ValueError, match='nsd_stim_info_merged.csv: nsdId goes from 1 to 30'):
            read()
    with pytest.raises(ValueError, match='nsd_stim_info_merged.csv: nsdId goes from 1 to 30'):
        nsd_coco_ids(path)


def test_shared_images_are_those_of_the_design_beside_the_table(world, tmp_path):
    """Ids that are all there, and moved by one."""
    experiment = world / 'nsd/nsddata/experiments/nsd'
    table = pd.read_csv(experiment / 'nsd_stim_info_merged.csv', index_col=0)
    path = tmp_path / 'nsd_stim_info_merged.csv'
    table.assign(nsdId=np.roll(table.nsdId, -1)).to_csv(path)
    assert len(read_stim_info(path, ['nsdId'])) == 950  # without a design nobody can know
    shutil.copy(experiment / 'nsd_expdesign.mat', tmp_path)
    with pytest.raises(ValueError, match=r'shared1000 differs from sharedix of .*nsd_expdesign.mat for \d+ image'):
        captions_by_image(path, world / 'coco_stimuli', [3])
    table.to_csv(path)
    assert len(captions_by_image(path, world / 'coco_stimuli')) == 950


def test_unknown_images_are_named(files):
    with pytest.raises(ValueError, match=r'image_ids: 30, -1 not in .*nsd_stim_info_merged.csv.* 0 to 29'):
        captions_by_image(files / 'nsd_stim_info_merged.csv', files, [3, 30, -1])
    with pytest.raises(ValueError, match='30, 31, .*39, … not in'):
        captions_by_image(files / 'nsd_stim_info_merged.csv', files, range(60))
