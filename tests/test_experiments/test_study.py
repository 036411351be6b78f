"""Studies expand as written, and what is wrong in one is named."""

from pathlib import Path

import pytest
from toy_study import STUDY, run

from mmnfn.experiments import launch, read_study

ROOT = Path(__file__).resolve().parents[2]


def test_expansion(toy, tmp_path):
    study = toy()
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
    assert len(encode.commands) == 1 and encode.commands[0][3] == weights
    assert study.jobs[-1].needs == () and study.jobs[-1].commands[0][3] == str(tmp_path / 'given.pth')


def test_options_are_filled_in_and_passed_on(toy):
    """{seed} also within a list; other braces are left alone."""
    row = dict(config='configs/pretrain.py', options={'a': ['{seed}', 2], 'b': '{epoch}'})
    study = toy(seeds=[7], backbones=dict(swin=dict(pretrain=dict(nfn=row))))
    assert study.jobs[0].commands[0][-3:] == ("a=['7',2]", 'b={epoch}', 'randomness.seed=7')


def one_row(**entries):
    """A study's only row."""
    return dict(backbones=dict(a=dict(pretrain=dict(b=entries))))


TESTS = dict.fromkeys(('detect', 'encode'), dict(config='configs/encode.py', train=False, processes=2))


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(seeds=3), 'seeds in .* must be a list of different whole numbers, but is 3'),
        (dict(seeds=[0, 0]), r'seeds in .* must be a list of different whole numbers, but is \[0, 0\]'),
        (dict(seeds=[True]), 'seeds in .* must be a list of different whole numbers'),
        (dict(name=5), 'name must be a text, but is 5'),
        (dict(work_dir=5), 'work_dir must be a path, but is 5'),
        (dict(processes='two'), "processes must be a whole number, but is 'two'"),
        (dict(processes=0), 'processes must be at least 1, but is 0'),
        (dict(backbones=[1]), r'backbones must be a mapping, but is \[1\]'),
        (dict(backbones=dict(a={})), 'has no pretrain under any of its backbones'),
        (dict(backbones=dict(a=dict(pretrain=[1]))), r'a, pretrain must be a mapping, but is \[1\]'),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(config=3))))),
            'a.pretrain.b, config must be a path, but is 3',
        ),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(config='c', options=[1]))))),
            r'a.pretrain.b, options must be a mapping, but is \[1\]',
        ),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(checkpoint='c', transfer=None))))),
            'a.pretrain.b, transfer must be a list, but is None',
        ),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(checkpoint='https://my,file.pth'))))),
            "'https://my,file.pth' has a comma",
        ),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(checkpoint='c')), transfer=dict(pretrain={})))),
            "a.transfer: 'pretrain' is the",
        ),
        (dict(backbones={}), 'has no backbones'),
        (dict(seed=[1]), "unknown entry 'seed'; is 'seeds' meant"),
        (dict(backbones=dict(a=dict(pretrain=dict(b={})))), 'a.pretrain.b needs one of config, random and checkpoint'),
        (dict(backbones=dict(a=dict(pretrain=dict(b=dict(config='c.py'))))), "names the config 'c.py'"),
        (
            dict(backbones=dict(a=dict(pretrain=dict(b=dict(checkpoint='c', transfer=['x']))))),
            "a.pretrain.b.transfer names 'x', which is no transfer",
        ),
        (dict(backbones=dict(a=dict(pretrain=dict(b='c')))), 'a.pretrain.b must be a mapping'),
        (one_row(checkpoint='c.pth'), "names the checkpoint 'c.pth', which is neither in .* nor here"),
        (one_row(checkpoint='given.pth', options={'lr': 1}), 'has options, but a row with checkpoint trains nothing'),
        (one_row(random='configs/pretrain.py', processes=2), 'has processes, but a row with random trains nothing'),
        (
            dict(backbones=dict(a=dict(STUDY['backbones']['swin'], transfer=TESTS))),
            'transfer detect has processes, but with train: false it is a test alone',
        ),
        *(
            (one_row(config='configs/pretrain.py', options={'lr': value}), 'options, lr: --cfg-options cannot take ')
            for value in ('a,b', '(1)', {'x': 1})
        ),
    ],
)
def test_wrong_studies_are_named(toy, changes, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        toy(**changes)


@pytest.mark.parametrize('text', ['[]', 'null', '{"name": "a"}', '{', '{"unknown": 1}'])
def test_a_damaged_record_is_named(toy, text):
    study = toy(seeds=[0])
    study.jobs[0].folder.mkdir(parents=True)
    (study.jobs[0].folder / 'job.json').write_text(text)
    with pytest.raises(ValueError, match='nfn/seed0/pretrain/job.json is no record of a job'):
        run(study)


def test_wrong_selection_is_named(toy):
    with pytest.raises(ValueError, match="--only: no job of .* has 'xyz' in its name; the first is swin/nfn"):
        launch.select(toy(), 'xyz')
    assert [job.name for job in launch.select(toy(), 'seed5/detect')] == [
        'swin/nfn/seed5/pretrain',
        'swin/nfn/seed5/detect',
    ]


@pytest.mark.parametrize('path', sorted((ROOT / 'studies').glob('*.yml')), ids=lambda path: path.stem)
def test_shipped_studies_expand(path):
    study = read_study(path, ROOT)
    assert len({job.name for job in study.jobs}) == len(study.jobs) > 0
