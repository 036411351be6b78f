"""Tables of a study: means, differences and what is missing, by hand."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import yaml

from mmnfn.experiments import read_study
from mmnfn.experiments.job import Record
from mmnfn.experiments.results import StudyResults, Summary, formatted, paired_difference, summarise
from mmnfn.visualization.study_tables import comma_separated, make_table, markdown, read_layouts

ROOT = Path(__file__).resolve().parents[2]
VALUES = {
    'random': {0: 0.20, 1: 0.30, 2: 0.25},
    'nfn': {0: 0.26, 1: 0.34, 2: 0.33},
    'nfn-shuffled': {0: 0.24, 1: 0.33},  # one seed is missing
}


@pytest.fixture()
def study(tmp_path):
    """A study whose test jobs are done, but for one; no paper has its backbone."""
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/a.py').write_text('a = 1\n')
    (tmp_path / 'x.pth').touch()
    column = dict(task='encode', metric='encoding/pcc', scale=100)
    content = dict(
        name='toy',
        work_dir=str(tmp_path / 'work'),
        seeds=[0, 1, 2],
        backbones={
            'micro': dict(
                pretrain={row: dict(checkpoint='x.pth') for row in VALUES},
                transfer=dict(encode=dict(config='configs/a.py', train=False)),
            )
        },
        tables=[dict(title='Toy', columns=dict(PCC=column))],
    )
    (tmp_path / 'study.yml').write_text(yaml.safe_dump(content, sort_keys=False))
    study = read_study(tmp_path / 'study.yml', tmp_path)
    for job in study.jobs:
        value = VALUES[job.labels['row']].get(int(job.labels['seed']))
        if value is not None:
            record = Record(job.name, job.labels, job.fingerprint, [], 'done', '', 1.0, '', None)
            record.write(job.folder)
            (job.folder / 'metrics.json').write_text(json.dumps({'encoding/pcc': value}))
    return study


def test_figures_are_those_of_finished_jobs(study):
    for row, values in VALUES.items():
        assert StudyResults(study).figures('micro', row, 'encode', 'encoding/pcc') == values
    assert StudyResults(study).figures('micro', 'nfn', 'detect', 'encoding/pcc') == {}
    results = StudyResults(study)
    assert results.figures('micro', 'nfn', 'encode', 'mIoU') == {}
    assert list(results.lacking) == [('encode', 'mIoU')]
    assert re.match(r'micro/nfn/seed\d/encode, which has encoding/pcc', results.lacking['encode', 'mIoU'])


def test_what_coco_has_nothing_to_find_of_is_no_figure(study):
    """-1 as pycocotools says it, which would stand in a table as -100."""
    for job in (job for job in study.jobs if job.labels['row'] == 'nfn'):
        (job.folder / 'metrics.json').write_text('{"coco/bbox_mAP_s": -1.0, "coco/bbox_mAP_l": 0.5}')
    results = StudyResults(study)
    small, large = (results.figures('micro', 'nfn', 'encode', f'coco/bbox_mAP_{size}') for size in 'sl')
    assert len(small) == len(large) == 3 and set(large.values()) == {0.5}
    assert formatted(summarise(small, 3), 100) == 'missing'


def test_means_and_differences():
    summary = summarise(VALUES['nfn'], 3)
    assert summary[:2] == (pytest.approx(0.31), pytest.approx(np.std([0.26, 0.34, 0.33], ddof=1)))
    assert formatted(summary, 100) == '31.0 ± 4.4'
    assert formatted(summarise(VALUES['nfn-shuffled'], 3), 100) == '28.5 ± 6.4 (2 of 3 seeds)'
    assert formatted(summarise({}, 3)) == 'missing' and formatted(Summary(0.5, float('nan'), 1, 0)) == '0.5'
    difference = paired_difference(VALUES['nfn'], VALUES['random'])
    pairs = scipy.stats.ttest_rel([0.26, 0.34, 0.33], [0.20, 0.30, 0.25]).confidence_interval(0.95)
    assert difference == (pytest.approx(0.06), pytest.approx(pairs.low), pytest.approx(pairs.high), 3)
    assert paired_difference(VALUES['nfn'], VALUES['nfn-shuffled']).count == 2
    one = paired_difference({0: 1.0}, {0: 0.5, 1: 3.0})
    assert one.mean == 0.5 and np.isnan(one.low) and paired_difference({0: 1.0}, {1: 1.0}).count == 0
    assert summarise({0: 1.0, 1: float('nan')}, 2).count == 1, 'NaN is no value'


def test_table(study):
    (layout,) = read_layouts(study)
    table = make_table(StudyResults(study), layout)
    assert table.head == ('backbone', 'weights', 'PCC')
    assert table.rows[0] == ('micro', 'random', '25.0 ± 5.0')
    assert table.rows[2] == ('micro', 'nfn-shuffled', '28.5 ± 6.4 (2 of 3 seeds)')
    assert [line[1] for line in table.differences] == ['nfn − random', 'nfn − nfn-shuffled', 'nfn-shuffled − random']
    assert table.differences[0][2] == '+6.0 [+1.0, +11.0]' and table.clear[0] == (False, False, True)
    assert not table.clear[2][2], 'the interval of two seeds has zero inside'
    text = markdown(table)
    assert '| micro | nfn | 31.0 ± 4.4 |' in text and 'Paired differences by seed' in text
    lines = list(csv.DictReader(io.StringIO(comma_separated(StudyResults(study), layout))))
    assert len(lines) == 8
    assert {(line['weights'], int(line['seed'])): float(line['value']) for line in lines} == {
        (row, seed): value for row, values in VALUES.items() for seed, value in values.items()
    }


def test_papers_figures_stand_beside_ours(study):
    content = study.content
    content['backbones'] = {'convnext-s': content['backbones']['micro']}
    (layout,) = read_layouts(study)
    table = make_table(StudyResults(study), layout)
    assert table.head[2:] == ('PCC', 'PCC, paper')
    assert [row[3] for row in table.rows] == ['54.2', '57.4', ''] and table.rows[0][2] == 'missing'
    content['backbones'] = {'micro': dict(content['backbones']['convnext-s'], paper='convnext-s')}
    table = make_table(StudyResults(study), layout)
    assert table.rows[1] == ('micro', 'nfn', '31.0 ± 4.4', '57.4')


def test_the_reference_is_the_tables_own(study):
    study.content['tables'][0]['references'] = ['nfn']
    table = make_table(StudyResults(study), *read_layouts(study))
    assert [line[1] for line in table.differences] == ['random − nfn', 'nfn-shuffled − nfn']
    assert table.differences[0][2] == '-6.0 [-11.0, -1.0]'
    study.content['tables'][0]['references'] = 'nfn'
    assert make_table(StudyResults(study), *read_layouts(study)) == table
    study.content['tables'][0]['references'] = []
    assert make_table(StudyResults(study), *read_layouts(study)).differences == []


@pytest.mark.parametrize(
    'tables, words',
    [
        ([dict(title='a')], 'must have title, columns'),
        ([dict(columns=dict(a=dict(task='b')))], "columns.a: .*'metric'"),
        (
            [dict(columns=dict(a=dict(task='encode', metric='c')), rows=['x'])],
            "names the row 'x', which is not pretrained",
        ),
        (
            [dict(columns=dict(a=dict(task='encode', metric='c')), references=['x'])],
            "references names 'x', which is no row of the table",
        ),
        (
            [dict(columns=dict(a=dict(task='encode', metric='c')), rows=['nfn'], references=['random'])],
            "references names 'random', which is no row of the table",
        ),
        ([dict(columns=dict(a=dict(task='encod', metric='c')))], "names the task 'encod'; there are encode"),
        ([dict(columns=['a'])], r"columns must be a mapping, but is \['a'\]"),
        ([dict(columns=dict(a=dict(task='encode', metric='c', scale='x')))], 'columns.a: could not convert'),
    ],
)
def test_wrong_tables_are_named(study, tables, words):
    study.content['tables'] = tables
    with pytest.raises(ValueError, match=words):
        read_layouts(study)


@pytest.mark.parametrize('path', sorted((ROOT / 'studies').glob('*.yml')), ids=lambda path: path.stem)
def test_shipped_tables_can_be_made_before_anything_is_done(path, tmp_path):
    study = read_study(path, ROOT, tmp_path)
    tables = [make_table(StudyResults(study), layout) for layout in read_layouts(study)]
    assert tables and all(cell == 'missing' for table in tables for row in table.rows for cell in row[2:3])


@pytest.mark.parametrize(
    'option, caption', [(None, '4 subjects in a training step'), (2, '2 subjects in a training step')]
)
def test_tables_name_the_subjects_of_a_training_step(tmp_path, option, caption):
    options = {} if option is None else {'train_dataloader.batch_sampler.subjects_per_step': option}
    rows = dict(nfn=dict(config='configs/nfn/pretrain_nsd.py', options=options))
    transfer = dict(encode=dict(config='configs/encoding/swin-s_nsd.py', train=False))
    content = dict(
        name='toy',
        work_dir=str(tmp_path),
        seeds=[0],
        backbones=dict(swin=dict(pretrain=rows, transfer=transfer)),
        tables=[dict(title='T', columns=dict(PCC=dict(task='encode', metric='encoding/pcc')))],
    )
    (tmp_path / 'study.yml').write_text(yaml.safe_dump(content, sort_keys=False))
    study = read_study(tmp_path / 'study.yml', ROOT)
    table = make_table(StudyResults(study), read_layouts(study)[0])
    assert f'Mean ± standard deviation over 1 seeds; {caption}.' in markdown(table)
