"""The GPU benchmark runs every line small on the CPU; the other benchmarks are run by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / 'tools' / 'dev' / 'gpu_bundle.sh'


def test_every_line_of_the_gpu_benchmark_runs_small_without_a_gpu(tmp_path):
    arguments = ['--device', 'cpu', '--tiny', '--json', 'gpu.json', '--minutes', '1000']
    command = [sys.executable, str(ROOT / 'benchmarks' / 'gpu.py'), *arguments]
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': path, 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    written = json.loads((tmp_path / 'gpu.json').read_text())
    rows = written['lines']
    assert {name: row['error'] for name, row in rows.items() if 'error' in row} == {}
    assert done.returncode == 0 and written['not_begun'] == []
    for name in ('Swin-S', 'ConvNeXt-S'):
        for precision in ('float32', 'TF32', 'bf16', 'bf16 compiled'):
            usual, largest = rows[f'{name}, {precision}'], rows[f'{name}, {precision}, largest batch']
            assert (usual['batch'], largest['batch']) == (2, 4)
            assert sum(usual[part] for part in ('backbone', 'tower', 'rest', 'waiting')) == pytest.approx(1)
        compared, ours = rows[f'{name}, bf16 against MMPretrain'], rows[f'{name}, bf16']['images_per_s']
        assert compared['times_simclr'] * compared['simclr_images_per_s'] == pytest.approx(ours)
        exact = rows[f'{name}, GPU against CPU']  # here both are the CPU
        assert (exact['losses'], exact['gradient'], exact['worst_parameter']) == (0, 0, 0)
        assert 0 < rows[f'{name}, bf16 against float32']['largest']
    assert rows['resumed run']['apart'] == 0 < rows['resumed run']['moved']
    for kind in ('plain', 'banded'):
        assert rows[f'{kind} ridge']['mean_r'] > 0.3 and rows[f'{kind} ridge']['r_apart'] < 1e-4
    assert 'images_per_s' in done.stdout.splitlines()[-17]  # the table of the 16 steps


def test_bundle_has_mmcv_without_operators_and_the_missing_packages(tmp_path):
    """With a Python that logs its arguments and writes two wheels, one of a package that images for GPUs have."""
    python, out = tmp_path / 'python', tmp_path / 'out'
    python.write_text(
        f'#!/bin/sh\necho "$MMCV_WITH_OPS $*" >>{tmp_path}/calls\ntouch {out}/nibabel-1.whl {out}/numpy-1.whl\n'
    )
    python.chmod(0o755)
    subprocess.run(['bash', str(BUNDLE), str(out)], check=True, env={**os.environ, 'PYTHON': str(python)})
    built, downloaded = (tmp_path / 'calls').read_text().splitlines()
    assert built.startswith('0 -m pip') and 'onedl-mmcv==' in built and '--no-cache-dir' in built
    for name in ('onedl-mmengine', 'onedl-mmpretrain', 'nibabel', 'pycocotools'):
        assert f' {name}==' in downloaded
    assert [path.name for path in out.iterdir()] == ['nibabel-1.whl']
