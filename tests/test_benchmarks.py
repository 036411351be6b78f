"""The GPU benchmark runs every line small on the CPU; the other benchmarks are run by hand."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from child import in_child

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / 'tools' / 'dev' / 'gpu_bundle.sh'


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    return importlib.import_module('gpu')


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


def test_a_missing_gpu_is_named(gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu.torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--json', str(tmp_path / 'gpu.json')])
    assert gpu.main() == 2 and not (tmp_path / 'gpu.json').exists()
    assert capsys.readouterr() == (
        '',
        'gpu.py: PyTorch sees no GPU here; --device cpu --tiny runs every line small\n',
    )


def interrupted_benchmark(gpu, path):
    clock = SimpleNamespace(now=0, perf_counter=lambda: clock.now)

    def broken(bench):
        raise RuntimeError('no memory')

    def slow(bench):
        clock.now = 61
        return dict(saved_before=list(json.loads(path.read_text())['lines']))

    gpu.time, gpu.lines = clock, lambda: dict(broken=broken, slow=slow, late=slow)
    sys.argv = ['gpu.py', '--device', 'cpu', '--tiny', '--minutes', '1', '--json', str(path)]
    return gpu.main()


def test_lines_are_saved_as_they_come_and_none_is_begun_late(gpu, tmp_path):
    assert in_child(interrupted_benchmark, gpu, tmp_path / 'gpu.json') == (1, 0)
    written = json.loads((tmp_path / 'gpu.json').read_text())
    assert written['lines']['broken']['error'] == 'RuntimeError: no memory'
    assert written['lines']['slow']['saved_before'] == ['broken'] and written['not_begun'] == ['late']


@pytest.fixture
def bundle(tmp_path):
    """Run the script with a Python that logs its arguments and writes wheels of a given size."""

    def run(megabytes=1):
        python = tmp_path / 'python'
        python.write_text(
            f'#!/bin/sh\necho "$MMCV_WITH_OPS $*" >>{tmp_path}/calls\n'
            f'head -c {megabytes}M /dev/zero >{tmp_path}/out/himalaya-1.whl\ntouch {tmp_path}/out/numpy-1.whl\n'
        )
        python.chmod(0o755)
        command = ['bash', str(BUNDLE), str(tmp_path / 'out')]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHON': str(python)})

    return run


def test_bundle_has_mmcv_without_operators_and_the_missing_packages(bundle, tmp_path):
    assert bundle().returncode == 0
    built, downloaded = (tmp_path / 'calls').read_text().splitlines()
    assert built.startswith('0 -m pip') and 'onedl-mmcv==' in built and '--no-cache-dir' in built
    for name in ('onedl-mmengine', 'onedl-mmpretrain', 'himalaya', 'nibabel', 'pycocotools'):
        assert f' {name}==' in downloaded
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['himalaya-1.whl']


def test_bundle_is_refused_if_too_large_or_the_folder_is_used(bundle):
    assert (bundle(50).returncode, bundle().returncode) == (1, 2)
