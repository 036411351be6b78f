"""Studies expand as written, and what is wrong in one is named."""

from pathlib import Path

import pytest
from toy_study import CONTENT

from mmnfn.experiments import read_study, runner
from mmnfn.experiments.report import StudyResults, make_table

ROOT = Path(__file__).resolve().parents[2]


def test_jobs_are_made_in_order(toy, tmp_path):
    study = toy.read()
    assert [job.name for job in study.jobs] == [
        'swin/nfn/seed0/pretrain',
        'swin/nfn/seed0/detect',
        'swin/nfn/seed0/encode',
        'swin/nfn/seed5/pretrain',
        'swin/nfn/seed5/detect',
        'swin/nfn/seed5/encode',
        'swin/given/seed0/encode',
        'swin/given/seed5/encode',
    ]
    pretrain, detect, encode = study.jobs[3:6]
    assert pretrain.labels == dict(backbone='swin', row='nfn', seed='5', task='pretrain') and pretrain.needs == ()
    assert pretrain.commands[0][-3:] == ('--cfg-options', 'data.shuffle=5', 'randomness.seed=5')
    assert detect.needs == encode.needs == ('swin/nfn/seed5/pretrain',)
    weights = f'{pretrain.folder}/backbone_latest.pth'
    assert f'model.backbone.init_cfg.checkpoint={weights}' in detect.commands[0]
    assert '--dump' not in encode.commands[0] and f'{detect.folder}/predictions.pkl' in detect.commands[1]
    assert len(encode.commands) == 1 and encode.commands[0][3] == weights
    assert study.jobs[-1].needs == () and study.jobs[-1].commands[0][3] == str(tmp_path / 'given.pth')


def test_the_seed_is_put_into_options(toy):
    """Also within a list; other braces are left alone."""
    row = dict(config='configs/pretrain.py', options={'a': ['{seed}', 2], 'b': '{epoch}'})
    study = toy.read(seeds=[7], backbones=dict(swin=dict(pretrain=dict(nfn=row))))
    assert study.jobs[0].commands[0][-3:] == ("a=['7',2]", 'b={epoch}', 'randomness.seed=7')


def test_a_transfer_may_start_from_the_whole_model(toy):
    """From the checkpoint that the pretraining wrote last, which is known when it has ended."""
    study = toy.read(**load_from(config='configs/pretrain.py'), seeds=[0])
    assert set(toy.run(study).values()) == {'done'}
    pretrained = study.jobs[0].folder / 'epoch_1.pth'
    assert toy.log()[2] == f'train b seed0 adapt load_from={pretrained} randomness.seed=0'
    line = [line for line in runner.command_lines(study.jobs) if ' load_from=' in line][0]
    assert f'load_from="$(cat {pretrained.parent}/last_checkpoint)"' in line


def test_a_baseline_is_tested_without_weights_by_its_own_config(toy):
    study = toy.read(**baseline(['encode']), seeds=[0, 5])
    assert [job.name for job in study.jobs] == ['a/b/seed0/encode', 'a/b/seed5/encode']
    job = study.jobs[1]
    assert job.needs == () and job.config == toy.root / 'configs/pretrain.py'
    assert [part for part in job.commands[0][2:] if part.startswith(('-', str(toy.root), 'a='))] == [
        str(toy.root / 'configs/pretrain.py'),
        '--work-dir',
        '--out',
        '--cfg-options',
        'a=5',
    ]
    assert set(toy.run(study).values()) == {'done'}
    assert toy.log() == ['test None', 'test None']


def row(**entries):
    """A study's only row."""
    return dict(backbones=dict(a=dict(pretrain=dict(b=entries))))


def load_from(**entries):
    """A study's only row, with a transfer that starts from its whole model."""
    content = row(**entries)
    content['backbones']['a']['transfer'] = dict(adapt=dict(config='configs/detect.py', load_from=True))
    return content


def baseline(transfer):
    """A study's only row, which has no weights."""
    content = row(baseline='configs/pretrain.py', options={'a': '{seed}'}, transfer=transfer)
    content['backbones']['a']['transfer'] = CONTENT['backbones']['swin']['transfer']
    return content


def table(**entries):
    columns = dict(PCC=dict(task='encode', metric='encoding/pcc'))
    return dict(tables=[{**dict(title='t', columns=columns), **entries}])


ALONE = dict(encode=dict(config='configs/encode.py', train=False, processes=2))


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(seeds=3), 'seeds must be a list, but is 3'),
        (dict(seeds=[0, 0]), r'seeds must be different whole numbers, but is \[0, 0\]'),
        (dict(processes=True), 'processes must be a whole number, but is True'),
        (dict(backbones={}), 'has no backbones'),
        (dict(backbones=dict(a=dict(CONTENT['backbones']['swin'], transfer=dict(pretrain={})))), 'choose another name'),
        (dict(backbones=dict(a=dict(CONTENT['backbones']['swin'], transfer=ALONE))), "unknown entry 'processes'"),
        (row(), 'a.pretrain.b needs one of config, random, checkpoint and baseline'),
        (row(config='c.py'), "names 'c.py', which is neither in .* nor here"),
        (row(checkpoint='given.pth', options={}), "unknown entry 'options'; it can have checkpoint, transfer"),
        (row(checkpoint='c', transfer=['x']), "a.pretrain.b.transfer names 'x'"),
        (load_from(checkpoint='given.pth'), 'b has a backbone alone, and adapt loads a whole model .load_from'),
        (baseline(['detect']), 'b has no weights, and detect is trained: name columns with train: false'),
        (row(config='configs/pretrain.py', options={'lr': {'x': 1}}), 'options, lr: --cfg-options cannot take '),
        (table(rows=['nfn'], references=['given']), "references names 'given'; there are nfn"),
        (table(columns=dict(a=dict(task='encod', metric='c'))), "columns.a names 'encod'; there are pretrain, detect"),
        (table(columns=dict(a=dict(task='encode', metric='c', scale='x'))), "scale must be a number, but is 'x'"),
    ],
)
def test_wrong_studies_are_named(toy, changes, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        toy.read(**changes)


def test_a_file_that_is_no_yaml_is_named_in_one_line(toy, tmp_path):
    toy.path.write_text('seeds: [0')
    with pytest.raises(ValueError, match='study.yml is no YAML: [^\n]*$'):
        read_study(toy.path, toy.root)
    with pytest.raises(FileNotFoundError, match='STUDY: there is no file'):
        read_study(tmp_path / 'nothing.yml', toy.root)


def test_selected_jobs_come_with_those_that_they_need(toy):
    study = toy.read()
    selected = [job.name for job in runner.select(study, 'seed5/detect')]
    assert selected == ['swin/nfn/seed5/pretrain', 'swin/nfn/seed5/detect']
    with pytest.raises(ValueError, match="--only: no job of .* has 'xyz' in its name; the first is swin/nfn"):
        runner.select(study, 'xyz')


@pytest.mark.parametrize('path', sorted((ROOT / 'studies').glob('*.yml')), ids=lambda path: path.stem)
def test_shipped_studies_expand_and_have_tables(path, tmp_path):
    study = read_study(path, ROOT, tmp_path)
    assert len({job.name for job in study.jobs}) == len(study.jobs) > 0
    tables = [make_table(StudyResults(study, {}), layout) for layout in study.content['tables']]
    assert tables and all((table.means.iloc[:, 2] == 'missing').all() for table in tables)
    assert all(f' over {len(study.seeds)} seeds; ' in table.caption for table in tables)
    papers = {name for layout in study.content['tables'] for name in layout.get('paper', {})}
    assert papers <= ({'swin-s', 'convnext-s'} & set(study.content['backbones'])), 'the metrics of other backbones'
