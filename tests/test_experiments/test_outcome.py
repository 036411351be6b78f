"""What jobs left is kept in a file: reports and runs go on from it without the jobs' folders."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
from finished_study import finished_study

from mmnfn.experiments import launch, read_study
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
