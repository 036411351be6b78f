"""The full-size configs on small samples of real data; takes minutes, runs with -m real_data."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'dev' / 'real_smoke.sh'


@pytest.mark.real_data
def test_full_size_configs_run_on_real_data():
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    command = ['bash', str(SCRIPT)] + [value for value in [os.environ.get('REAL_DATA')] if value]
    done = subprocess.run(command, env=dict(os.environ, PYTHON=sys.executable), capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    metrics = dict(re.findall(r'^([\w., -]+): ([-\d.e]+)$', done.stdout, re.M))
    for name in ('mask-rcnn, APbox', 'mask-rcnn, APsegm', 'upernet, mIoU', 'upernet, aAcc'):
        assert 0 <= float(metrics[name]) <= 100, name
    losses = dict(re.findall(r'^([\w-]+), loss by iteration: (.+)$', done.stdout, re.M))
    counts = {name: len(values.split()) for name, values in losses.items()}
    assert counts == {'pretrain_nsd': 3, 'pretrain_nsd_convnext-s': 3, 'mask-rcnn': 5, 'upernet': 5}
    assert 'nan' not in ' '.join(losses.values())
