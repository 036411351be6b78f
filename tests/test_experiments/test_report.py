"""Tables, figures and pages of a study: means and differences by hand, what is missing, and what is kept in a file."""

import base64
import json
import pickle
import re
import runpy
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml
from finished_study import CONTENT, PCC, finished_study

from mmnfn.evaluation.retrieval import Ranks, recall_curve
from mmnfn.experiments import read_study, runner
from mmnfn.experiments.report import (
    StudyResults,
    difference_text,
    draw_study,
    holm,
    make_table,
    markdown,
    mean_text,
    paired_difference,
    read_outcome,
    read_results,
)

ROOT = Path(__file__).resolve().parents[2]
TRAINING, TEST = 'micro/nfn/seed0/pretrain', 'micro/nfn/seed0/encode'


def call(tool, *arguments):
    """Exit code of a command line of ``tools/experiments``."""
    return runpy.run_path(str(ROOT / f'tools/experiments/{tool}.py'))['main']([*map(str, arguments)])


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished study, its report in ``report``."""
    study = finished_study(tmp_path_factory.mktemp('study'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study.path.parent)
        assert call('report', study.path, '--out', 'report') == 0
    return study


@pytest.fixture()
def study(finished, monkeypatch):
    """It, in the current folder."""
    monkeypatch.chdir(finished.path.parent)
    return finished


@pytest.fixture()
def moved(study, tmp_path):
    """It without the folders of its jobs."""
    return read_study(study.path, ROOT, tmp_path / 'nowhere')


@pytest.fixture()
def layout():
    return dict(CONTENT['tables'][0])


def test_metrics_are_those_of_finished_jobs(study):
    results = StudyResults(study, {})
    for row, values in PCC.items():
        assert results.metric('micro', row, 'encode', 'encoding/pcc').to_dict() == values
    assert results.metric('micro', 'nfn', 'detect', 'encoding/pcc').empty and not results.lacking
    assert results.metric('micro', 'nfn', 'encode', 'mIoU').empty
    assert list(results.lacking) == ['mIoU'] and results.lacking['mIoU'].startswith('micro/nfn/seed')


def test_coco_metrics_without_objects_are_missing(study):
    """-1 as pycocotools says it, which would stand in a table as -100."""
    results = StudyResults(study, {})
    small, large = (results.metric('micro', 'nfn', 'encode', f'coco/bbox_mAP_{size}') for size in 'sl')
    assert mean_text(small, 3, 100) == 'missing' and mean_text(large, 3, 100) == '50.0 ± 0.0'


def test_means_and_differences_by_hand():
    values, reference = pd.Series([0.26, 0.34, 0.33]), pd.Series([0.20, 0.30, 0.25])
    assert mean_text(values, 3, 100) == '31.0 ± 4.4' and values.std() == pytest.approx(np.std(values, ddof=1))
    assert mean_text(values[:2], 3, 100) == '30.0 ± 5.7 (2 of 3 seeds)' and mean_text(values[:1], 1) == '0.3'
    assert mean_text(pd.Series([1, np.nan]), 2) == '1.0 (1 of 2 seeds)' and mean_text(values[:0], 3) == 'missing'
    difference = paired_difference(values, reference)
    error = np.std([0.06, 0.04, 0.08], ddof=1) / 3**0.5
    reach = scipy.stats.t.ppf(0.975, 2) * error
    assert difference[:3] == pytest.approx((0.06, 0.06 - reach, 0.06 + reach))
    assert difference.p == pytest.approx(2 * scipy.stats.t.sf(0.06 / error, 2))
    assert difference_text(difference, 100) == '+6.0 [+1.0, +11.0] (6.5)'
    assert difference_text(difference, 100, 2, True) == '+6.00 [+1.03, +10.97]* (6.53)'
    assert paired_difference(values, values - 0.5) == (0.5, 0.5, 0.5, 0, 0)
    assert paired_difference(values, values).p == 1
    one, none = paired_difference(values, pd.Series([0.1, 3.0], index=[0, 7])), paired_difference(values, values[:0])
    assert difference_text(one, 100) == '+16.0' and difference_text(none) == 'missing'


@pytest.mark.parametrize('seeds', [2, 3, 5])
def test_the_detectable_effect_is_found_in_80_percent_of_simulated_studies(seeds):
    ones = pd.Series(scipy.stats.zscore(np.arange(seeds), ddof=1))  # differences with a std of 1
    effect = paired_difference(ones, 0 * ones).detectable
    studies = np.random.default_rng(0).normal(effect, 1, (20_000, seeds))
    assert (scipy.stats.ttest_1samp(studies, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_holms_correction_by_hand_and_without_missing_rows():
    corrected = holm([0.01, 0.04, np.nan, 0.03, 0.005])
    assert corrected.tolist() == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    assert holm([0.5, 0.6]).tolist() == [1, 1] and holm([]).size == 0


def test_table_by_hand(study, layout):
    table = make_table(StudyResults(study, {}), layout)
    assert table.means.to_numpy().tolist() == [
        ['micro', 'random', '25.0 ± 5.0', '54.2'],
        ['micro', 'nfn', '31.0 ± 4.4', ''],
        ['micro', 'nfn-shuffled', '28.5 ± 6.4 (2 of 3 seeds)', ''],
    ]
    assert list(table.means) == ['backbone', 'weights', 'PCC', 'PCC, paper']
    assert list(table.differences.difference) == ['nfn − random', 'nfn − nfn-shuffled', 'nfn-shuffled − random']
    assert table.differences.PCC[0] == '+6.0 [+1.0, +11.0] (6.5)', 'p is 0.035, times three differences'
    text = markdown(table)
    assert '| micro | nfn | 31.0 ± 4.4 |  |' in text and 'Paired differences by seed' in text
    steps = '2 subjects in a training step (nfn-shuffled); 4 subjects in a training step (nfn).'
    assert table.caption == f"Mean ± std over 3 seeds; {steps} The paper's numbers are from its own data."
    values = table.values.set_index(['weights', 'seed']).value
    assert values.to_dict() == {(row, seed): v for row, by_seed in PCC.items() for seed, v in by_seed.items()}
    table = make_table(StudyResults(study, {}), dict(layout, references=['nfn']))
    assert list(table.differences.difference) == ['random − nfn', 'nfn-shuffled − nfn']
    assert table.differences.PCC[0] == '-6.0 [-11.0, -1.0] (6.5)'
    table = make_table(StudyResults(study, {}), dict(layout, rows=['nfn', 'random'], references=['random'], paper={}))
    assert table.differences.PCC.tolist() == ['+6.0 [+1.0, +11.0]* (6.5)'] and 'paper' not in table.caption
    assert make_table(StudyResults(study, {}), dict(layout, references=[])).differences.empty


def test_later_starts_of_a_training_count(study):
    curves = StudyResults(study, {}).get('micro', 'nfn', 'pretrain', 'curves')
    assert {seed: found['loss_con'] for seed, found in curves.items()} == {
        s: {'10': 5, '20': 4, '30': 4} for s in range(3)
    }


def test_figure_has_what_there_is(study, moved):
    figure = draw_study(StudyResults(study, {}), 'micro')
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 4 and titles[0].startswith('Contrastive loss') and titles[3].startswith('Encoding by ROI')
    legends = [{text.get_text() for text in axes.get_legend().get_texts()} for axes in figure.axes]
    assert legends[:2] == [{'nfn', 'nfn-shuffled'}] * 2 and legends[2] == {'nfn', 'nfn-shuffled', 'chance'}
    assert legends[3] == {*PCC, 'noise ceiling'}
    encoding = {name: outcome for name, outcome in StudyResults(study, {}).outcomes.items() if 'encode' in name}
    assert len(draw_study(StudyResults(moved, encoding), 'micro').axes) == 1
    assert draw_study(StudyResults(moved, {}), 'micro') is None


def test_a_pretraining_that_embeds_nothing_has_no_ranks(study):
    """One by L_enc alone."""
    job = next(job for job in study.jobs if job.name == TRAINING)
    path = job.folder / 'embeddings.pkl'
    before = path.read_bytes()
    assert read_outcome(job)['ranks'] is not None
    path.write_bytes(pickle.dumps([dict(subject='subj01', image_id=0, predicted_responses=[0.5])]))
    assert read_outcome(job)['ranks'] is None
    path.write_bytes(before)


def test_recall_by_hand():
    ranks = Ranks(np.array([1, 3, 3, 4]), np.array([5, 5, 5, 4]), np.arange(4))
    assert recall_curve(ranks).tolist() == [0.25, 0.25, 0.75, 1.0, 1.0]


def test_page_stands_alone(study):
    names = {path.name for path in Path('report').iterdir()}
    assert names == {'report.html', 'report.md', 'results.json', 'study_table1.csv'}
    text = Path('report/report.html').read_text()
    (image,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)"', text)
    assert ElementTree.fromstring(base64.b64decode(image)).tag.endswith('svg')
    assert not re.search(r'<(script|link|iframe)|@import|url\(|(src|href)="(?!data:)', text), (
        'nothing comes from elsewhere'
    )
    assert '<h1>Toy &amp; &lt;co&gt;</h1>' in text and '<td>31.0 ± 4.4</td>' in text
    assert '<td>28.5 ± 6.4 (2 of 3 seeds)</td>' in text and '<td>+6.0 [+1.0, +11.0] (6.5)</td>' in text


def test_report_is_made_again_from_its_results(study, moved):
    arguments = study.path, '--work-dir', moved.work_dir
    assert call('report', *arguments, '--results', 'report/results.json', '--out', 'again') == 0
    for path in Path('report').iterdir():
        assert path.read_bytes() == (Path('again') / path.name).read_bytes(), path.name
    assert '14 of 15 jobs are done' in Path('again/report.md').read_text()
    assert call('report', *arguments, '--out', 'without') == 0
    assert '0 of 15 jobs are done' in Path('without/report.md').read_text()


def test_kept_jobs_are_not_run_again(moved, capsys):
    kept = read_results('report/results.json')
    lost = 'micro/nfn-shuffled/seed2/encode'
    states = runner.job_states(moved.jobs, kept)
    assert states.pop(lost) == 'new' and set(states.values()) == {'kept'}
    assert [job.name for job in runner.pending(moved.jobs, kept=kept)] == ['micro/nfn-shuffled/seed2/pretrain', lost]
    kept[TEST] = dict(kept[TEST], fingerprint='of other settings')
    assert [job.name for job in runner.pending(moved.jobs, kept=kept)][:2] == [TRAINING, TEST], 'weights are gone'
    arguments = moved.path, '--work-dir', moved.work_dir, '--results', 'report/results.json'
    assert call('run', *arguments, '--status') == 1
    assert capsys.readouterr().out.splitlines()[-1] == '14 kept, 1 new'
    assert call('run', *arguments, '--launcher', 'print') == 0
    printed = capsys.readouterr().out
    assert '# micro/nfn-shuffled/seed2/pretrain\n' in printed and f'# {TEST}' not in printed


def test_results_with_other_settings_are_stale(study, tmp_path):
    kept, config = read_results('report/results.json'), Path('configs/a.py').read_text()
    Path('configs/a.py').write_text('a = 2\n')
    results = StudyResults(read_study(study.path, ROOT, tmp_path), kept)
    Path('configs/a.py').write_text(config)
    assert results.outcomes == {} and results.stale == 14


def test_a_metric_that_no_test_gave_is_named_and_missing(study):
    """Such as those without NSD's images, where their list was not there."""
    content = yaml.safe_load(study.path.read_text())
    content['tables'][0]['columns']['APbox'] = dict(task='encode', metric='coco_without_nsd/bbox_mAP')
    Path('other.yml').write_text(yaml.safe_dump(content, sort_keys=False))
    assert call('report', 'other.yml', '--results', 'report/results.json', '--out', 'lacking') == 0
    text = Path('lacking/report.md').read_text()
    assert 'coco_without_nsd/bbox_mAP is not in micro/nfn' in text and '| missing |' in text and '31.0 ± 4.4' in text


def test_two_outcomes_of_one_name_are_refused(study, tmp_path, capsys):
    """One of them would be lost."""
    content = dict(yaml.safe_load(study.path.read_text()), work_dir=str(tmp_path / 'other'))
    content['backbones']['micro']['transfer']['encode']['options'] = dict(b=1)
    Path('other.yml').write_text(yaml.safe_dump(content, sort_keys=False))
    job = next(job for job in read_study('other.yml', ROOT).jobs if job.name == TEST)
    job.write_record(status='done')
    shutil.copy(study.work_dir / TEST / 'metrics.json', job.folder)
    assert call('report', study.path, 'other.yml', '--out', 'both') == 2 and not Path('both').exists()
    assert f'study.yml and other.yml both have {TEST}, with other settings' in capsys.readouterr().err


def test_another_file_is_named(study, capsys, tmp_path):
    path, out = tmp_path / 'other.json', tmp_path / 'out'
    path.write_text('{"format": 1}')
    assert call('report', study.path, '--results', path, '--out', out) == 2 and not out.exists()
    assert f'{path} holds no results' in capsys.readouterr().err


def test_damaged_metrics_are_named(study):
    path = study.work_dir / TEST / 'metrics.json'
    before = path.read_bytes()
    path.write_bytes(before[:-5])
    with pytest.raises(ValueError, match='seed0/encode/metrics.json is damaged'):
        StudyResults(study, {})
    path.write_bytes(before)
    assert json.loads(before)
