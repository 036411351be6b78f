"""What jobs left is kept in a file: reports and runs go on from it without the jobs' folders."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import yaml
from finished_study import finished_study

from mmnfn.experiments import launch, read_study
from mmnfn.experiments.job import Record
from mmnfn.experiments.outcome import read_results
from mmnfn.experiments.results import StudyResults

ROOT = Path(__file__).resolve().parents[2]
TRAINING, TEST = 'micro/nfn/seed0/pretrain', 'micro/nfn/seed0/encode'


def call(tool, *arguments):
    """Exit code of a command line of ``tools/experiments``."""
    return runpy.run_path(str(ROOT / f'tools/experiments/{tool}.py'))['main']([*map(str, arguments)])


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished study with its report in ``report``; then its jobs' folders are removed."""
    folder = tmp_path_factory.mktemp('study')
    study = finished_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert call('report', study.path, '--out', 'report') == 0
    shutil.rmtree(study.work_dir)
    return folder


@pytest.fixture()
def study(finished, monkeypatch):
    """It, in the current folder."""
    monkeypatch.chdir(finished)
    return read_study('study.yml', ROOT)


def test_a_report_is_made_from_what_is_kept(study):
    assert call('report', study.path, '--results', 'report/results.json', '--out', 'again') == 0
    for path in Path('report').iterdir():
        assert path.read_bytes() == (Path('again') / path.name).read_bytes(), path.name
    assert '8 of 8 jobs are done' in Path('again/report.md').read_text()
    assert call('report', study.path, '--out', 'without') == 0
    assert '0 of 8 jobs are done' in Path('without/report.md').read_text()


def test_what_is_kept_is_not_run_again(study, capsys):
    kept = read_results('report/results.json')
    assert len(kept) == 8 and launch.pending(study.jobs, kept=kept) == [] and len(launch.pending(study.jobs)) == 8
    assert call('run', study.path, '--results', 'report/results.json', '--status') == 0
    assert capsys.readouterr().out.splitlines()[-1] == '8 kept'
    test = kept.pop(TEST)
    pending = [job.name for job in launch.pending(study.jobs, kept=kept)]
    assert pending == [TRAINING, TEST], 'the test needs the weights, which are gone'
    kept[TEST] = test._replace(fingerprint='of other settings')
    assert [job.name for job in launch.pending(study.jobs, kept=kept)] == [TRAINING, TEST]


def test_other_settings_are_stale(study):
    kept = read_results('report/results.json')
    config = Path('configs/a.py').read_text()
    Path('configs/a.py').write_text('a = 2\n')
    results = StudyResults(read_study(study.path, ROOT), kept)
    Path('configs/a.py').write_text(config)
    assert results.outcomes == {} and results.stale == 8


def test_a_figure_that_no_test_gave_is_named_and_missing(study, capsys):
    """Such as those without NSD's pictures, where their list was not there."""
    content = yaml.safe_load(study.path.read_text())
    content['tables'][0]['columns']['APbox'] = dict(task='encode', metric='coco_without_nsd/bbox_mAP')
    Path('other.yml').write_text(yaml.safe_dump(content, sort_keys=False))
    assert call('report', 'other.yml', '--results', 'report/results.json', '--out', 'lacking') == 0
    assert 'other.yml: coco_without_nsd/bbox_mAP is not in metrics.json of micro/' in capsys.readouterr().err
    text = Path('lacking/report.md').read_text()
    assert 'is not in metrics.json of micro/' in text and '| missing |' in text and '32.0 ± 1.4' in text


def test_two_outcomes_of_one_name_are_refused(study, capsys):
    """One of them would be lost, and with the folders gone for ever."""
    content = yaml.safe_load(study.path.read_text())
    content['backbones']['micro']['transfer']['encode']['options'] = dict(b=1)
    Path('other.yml').write_text(yaml.safe_dump({**content, 'work_dir': 'elsewhere'}, sort_keys=False))
    other = read_study('other.yml', ROOT)
    job = next(job for job in other.jobs if job.name == TEST)
    Record(job.name, job.labels, job.fingerprint, [], 'done', '', 1.0, '', None).write(job.folder)
    (job.folder / 'metrics.json').write_text('{"encoding/pcc": 0.5}')
    assert call('report', study.path, 'other.yml', '--results', 'report/results.json', '--out', 'both') == 2
    assert f'study.yml and other.yml both have {TEST}, with other settings' in capsys.readouterr().err
    assert not Path('both').exists()
    assert call('report', 'other.yml', '--results', 'report/results.json', '--out', 'one') == 0
    assert read_results('one/results.json')[TEST].metrics == {'encoding/pcc': 0.5}


def test_printing_removes_nothing(study, capsys):
    assert call('run', study.path, '--launcher', 'print', '--redo') == 2
    assert '--redo removes folders' in capsys.readouterr().err


@pytest.mark.parametrize(
    'change',
    [
        lambda content: [],
        lambda content: dict(content, format='another'),
        lambda content: dict(content, jobs={TEST: dict(metrics={})}),
        lambda content: dict(content, jobs=[1]),
    ],
)
def test_another_file_is_named(study, change, capsys, tmp_path):
    path, out = tmp_path / 'other.json', tmp_path / 'out'
    path.write_text(json.dumps(change(json.loads(Path('report/results.json').read_text()))))
    assert call('report', study.path, '--results', path, '--out', out) == 2
    assert f'--results: {path} holds no results of a study' in capsys.readouterr().err and not out.exists()
    path.write_text('{"format"')
    with pytest.raises(ValueError, match='holds no results'):
        read_results(path)
    with pytest.raises(FileNotFoundError, match='there is no file'):
        read_results('report')
