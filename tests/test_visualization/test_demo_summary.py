"""The demo's figures are collected from where its commands write them, and judged as the README says."""

import copy
import io
import json

import pytest
from rich.console import Console

from mmnfn.visualization.demo_summary import INITS, print_summary, summarize, unmet_expectations


@pytest.fixture()
def summary(tmp_path):
    def write(path, **metrics):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps(metrics))

    write('nfn/retrieval/metrics.json', **{'retrieval/image_to_brain_top1': 0.3, 'retrieval/chance': 0.01})
    for k, init in enumerate(INITS):
        metrics = {
            'pcc': 0.2 + 0.1 * k,
            'pcc_se': 0.01,
            'pcc_normalized': 0.4 + 0.1 * k,
            'pcc_roi_streams': 0.2 + 0.1 * k,
            'pcc_roi_streams_low': 0.1,
        }
        write(f'{init}/encoding/metrics.json', **{f'encoding/{name}': value for name, value in metrics.items()})
        write(f'{init}/detect/metrics.json', **{'coco/bbox_mAP': 0.1 + 0.01 * k, 'coco/segm_mAP': 0.08 + 0.01 * k})
        write(f'{init}/segment/metrics.json', mIoU=20.0 + k)
    return summarize(tmp_path, dict(simulate=1.23))


def test_summary(summary):
    assert summary['APbox'] == pytest.approx(dict(random=10, shuffled=11, nfn=12))
    assert summary['mIoU'] == dict(random=20, shuffled=21, nfn=22)
    assert summary['pcc_by_roi']['random'] == dict(streams=0.2)
    assert (summary['retrieval_top1'], summary['retrieval_chance']) == (0.3, 0.01)
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
    unmet = unmet_expectations(worse)
    assert len(unmet) == 1 and named in unmet[0]
    console = Console(file=io.StringIO(), width=120)
    print_summary(worse, console)
    assert unmet[0] in console.file.getvalue()
