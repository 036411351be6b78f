"""The commands around other data: what they write, and what they say about wrong arguments."""

import json
from pathlib import Path

import pandas as pd
import pytest
from algonauts_tree import write_tree

from mmnfn.nsd import ROIStore


@pytest.fixture()
def coco(tmp_path, monkeypatch):
    """A table and an annotation file in the working folder: subject 1 sees the COCO ids 3 and 5, subject 2 the id 8."""
    monkeypatch.chdir(tmp_path)
    table = dict(cocoId=[5, 3, 8, 9], cocoSplit=['train2017', 'val2017', 'train2017', 'train2017'], nsdId=range(4))
    pd.DataFrame(dict(table, subject1=[1, 1, 0, 0], subject2=[0, 0, 1, 0])).to_csv('info.csv')
    images = [dict(id=i) for i in range(10)]
    content = dict(images=images, annotations=[dict(id=i, image_id=i // 2) for i in range(20)])
    Path('instances.json').write_text(json.dumps(content))


def test_coco_without_nsd(run, coco):
    code, out, _ = run(
        'coco_nsd_overlap', 'info.csv', '--annotations', 'instances.json', '--out', 'a/b', '--ids', 'i.json'
    )
    assert code == 0 and 'images used by NSD: 4 (3 of train2017, 1 of val2017)' in out
    assert out.splitlines()[2].split() == ['instances.json', '10', '4', '6', '20', '12']
    assert out.splitlines()[3:] == ['wrote a/b/instances_without_nsd.json', 'wrote i.json']
    copy = json.loads(Path('a/b/instances_without_nsd.json').read_text())
    assert [image['id'] for image in copy['images']] == [0, 1, 2, 4, 6, 7]
    assert json.loads(Path('i.json').read_text()) == {'train2017': [5, 8, 9], 'val2017': [3]}


def test_existing_files_are_kept_unless_asked(run, coco):
    arguments = ('info.csv', '--annotations', 'instances.json', '--out', 'out', '--ids', 'ids.json')
    Path('ids.json').write_text('mine')
    code, _, err = run('coco_nsd_overlap', *arguments)
    assert code == 1 and 'ids.json exists' in err and '--overwrite' in err and not Path('out').exists()
    assert run('coco_nsd_overlap', *arguments, '--overwrite')[0] == 0
    assert json.loads(Path('ids.json').read_text())['val2017'] == [3]
    code, _, err = run('coco_nsd_overlap', *arguments[:-2])
    assert code == 1 and 'instances_without_nsd.json exists' in err


@pytest.mark.parametrize(
    'arguments, named',
    [
        (('info.csv', '--subjects', '3'), 'subject3'),
        (('info.csv', '--out', 'out'), '--out is given without --annotations'),
        (('instances.json', '--ids', 'ids.json'), 'instances.json lacks the column'),
    ],
)
def test_errors_of_the_overlap_are_one_line(run, coco, arguments, named):
    code, _, err = run('coco_nsd_overlap', *arguments)
    assert code == 1 and err.startswith('coco_nsd_overlap.py: error: ') and named in err and err.count('\n') == 1
    assert sorted(path.name for path in Path().iterdir()) == ['info.csv', 'instances.json']


@pytest.fixture(scope='module')
def algonauts(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp('algonauts') / 'data')


def test_the_split_of_the_algonauts_data(run, algonauts, tmp_path):
    options = ('--fsaverage', algonauts / 'fsaverage', '--subjects', 6, '--test-fraction', 0.4, '--seed', 3)
    code, out, _ = run('prepare_algonauts', algonauts, tmp_path, *options)
    assert code == 0 and out.startswith(f'wrote {tmp_path}/subj06.h5')
    assert '0.4, seed 3' in ROIStore(tmp_path / 'subj06.h5').attributes['split_rule']


@pytest.mark.parametrize(
    'arguments, named',
    [
        (('{tree}', 'store'), 'nilearn'),
        (('{tree}', 'store', '--fsaverage', '{tree}/fsaverage', '--test-fraction', '1'), 'test-fraction is 1.0'),
        (('{tree}', 'store', '--fsaverage', '{tree}/fsaverage', '--noise-ceiling', 'test'), 'test/subj01/test_split'),
    ],
)
def test_errors_of_the_algonauts_preparation_are_one_line(run, algonauts, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    code, _, err = run('prepare_algonauts', *(a.format(tree=algonauts) for a in arguments))
    assert code == 1 and err.startswith('prepare_algonauts.py: error: ') and named in err and err.count('\n') == 1
    assert not list(tmp_path.rglob('*.h5'))
