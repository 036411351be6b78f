"""The demo is a study with one seed: its metrics are collected and judged as the README says."""

import copy
import json
import runpy
from pathlib import Path

import pytest

from mmnfn.experiments import read_study, runner
from mmnfn.visualization.demo_figure import ROWS, summarize, unmet_expectations

ROOT = Path(__file__).resolve().parents[2]


def finish(study):
    """Write what the jobs of the demo's study leave."""
    for job in study.jobs:
        k = list(ROWS).index(job.labels['row'])
        encoding = dict(pcc=0.2 + 0.1 * k, pcc_se=0.01, pcc_normalized=0.4 + 0.1 * k, pcc_roi_streams=0.2 + 0.1 * k)
        metrics = dict(
            pretrain={'retrieval/image_to_brain_top1': 0.1 * (k + 1), 'retrieval/chance': 0.01},
            encode={f'encoding/{name}': value for name, value in dict(encoding, pcc_roi_streams_low=0.1).items()},
            detect={'coco/bbox_mAP': 0.1 + 0.01 * k, 'coco/segm_mAP': 0.08 + 0.01 * k},
            segment=dict(mIoU=20.0 + k),
        )
        job.write_record(status='done', seconds=[10.0, 1.0][: len(job.commands)])
        (job.folder / 'metrics.json').write_text(json.dumps(metrics[job.labels['task']]))
        for path in job.outputs:
            path.touch()


@pytest.fixture(scope='module')
def summary(tmp_path_factory):
    study = read_study(ROOT / 'studies/demo.yml', ROOT, tmp_path_factory.mktemp('demo'))
    finish(study)
    return summarize(study, dict(simulate=1.2))


def test_summary_has_metrics_by_row_and_seconds_by_command(summary):
    assert summary['APbox'] == pytest.approx(dict(random=10, shuffled=11, nfn=12))
    assert summary['mIoU'] == dict(random=20, shuffled=21, nfn=22)
    assert summary['pcc_by_roi']['random'] == dict(streams=0.2)
    assert (summary['retrieval_top1'], summary['retrieval_chance']) == (pytest.approx(0.3), 0.01)
    seconds = summary['seconds']
    assert seconds['simulate'] == 1.2 and seconds['random weights'] == seconds['encode nfn'] == 10
    assert seconds['pretrain nfn'] == seconds['detect shuffled train'] == 10
    assert seconds['retrieval'] == seconds['segment random test'] == 1
    assert unmet_expectations(summary) == []


@pytest.mark.parametrize(
    'change, named',
    [
        (lambda s: s.update(retrieval_top1=0.09), 'ten times chance'),
        (lambda s: s['pcc'].update(random=0.39), 'above random'),
        (lambda s: s['pcc'].update(shuffled=0.41), 'above shuffled'),
        (lambda s: s['APsegm'].update(nfn=7.9), 'APsegm'),
        (lambda s: s['mIoU'].update(nfn=19.9), 'mIoU'),
    ],
)
def test_what_is_not_as_expected_is_said(summary, change, named):
    worse = copy.deepcopy(summary)
    change(worse)
    (unmet,) = unmet_expectations(worse)
    assert named in unmet


def test_demo_goes_on_and_begins_anew_after_its_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    tool = runpy.run_path(str(ROOT / 'tools/demo.py'))
    states, names = [], tool['main'].__globals__

    def run_locally(study, jobs, console, workers, redo):
        states.append({job.state() for job in jobs})
        finish(study)
        if len(states) == 1:
            (jobs[-1].folder / 'metrics.json').unlink()
            return {jobs[-1].name: 'failed'}
        return {jobs[-1].name: 'done'}

    monkeypatch.setattr(runner, 'run_locally', run_locally)
    for name, value in dict(
        OUT=tmp_path / 'demo', simulate=lambda console: {}, draw_demo_figure=lambda *arguments: None
    ).items():
        monkeypatch.setitem(names, name, value)
    assert tool['main']([]) == 1 and not (tmp_path / 'demo/summary.json').exists()
    assert tool['main']([]) == 0 == tool['main']([])
    assert states == [{'new'}, {'done', 'interrupted'}, {'new'}]
    assert 'APsegm (%)' in capsys.readouterr().out and names['os'].environ['CUDA_VISIBLE_DEVICES'] == ''
