"""The text that people paste into an issue says which libraries they have."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

import mmnfn

TOOL = [sys.executable, str(Path(__file__).resolve().parents[2] / 'tools/collect_env.py')]


def test_the_command_names_versions():
    done = subprocess.run(TOOL, capture_output=True, text=True, check=True)
    facts = dict(line.split(': ', 1) for line in done.stdout.splitlines() if ': ' in line)
    assert facts['mmnfn'].startswith(f'{mmnfn.__version__}, revision ') and facts['PyTorch'] == torch.__version__
    assert facts['numpy'] == metadata.version('numpy') and facts['mmcv.ops'].split(':')[0] in ('there', 'missing')
    (engine,) = [name for name in facts if name in ('mmengine', 'mmengine-lite', 'onedl-mmengine')]
    assert facts[engine] == metadata.version(engine)


def test_the_command_helps_where_mmnfn_cannot_be_imported(tmp_path):
    (tmp_path / 'mmnfn').mkdir()
    (tmp_path / 'mmnfn/__init__.py').write_text('raise ImportError("two stacks are mixed")')
    done = subprocess.run(TOOL, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert done.returncode == 1 and 'mmnfn cannot be imported: two stacks are mixed' in done.stdout
    assert 'mmengine: ' in done.stdout and 'Traceback' not in done.stderr
