"""What people paste into an issue says which libraries they have."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

import mmnfn
from mmnfn.engine import environment
from mmnfn.engine.environment import collect_environment

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_names_the_stack():
    command = [sys.executable, str(ROOT / 'tools/collect_env.py')]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    facts = dict(line.split(': ', 1) for line in lines if ': ' in line)
    assert facts['mmnfn'] == mmnfn.__version__ and facts['PyTorch'] == torch.__version__
    (stack,) = [line for line in lines if line.startswith('Stack: ')]
    name = 'onedl-mmengine' if stack.startswith('Stack: OneDL') else 'mmengine'
    assert f'{name} {metadata.version(name)}' in stack


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(environment.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(environment, 'LIBRARIES', ('no-such-library',))
    facts = collect_environment()
    assert facts['mmcv.ops'].startswith('missing') and facts['no-such-library'] == 'not installed'


def test_the_command_helps_where_mmnfn_cannot_be_imported(tmp_path):
    """That is when people need it."""
    (tmp_path / 'mmnfn').mkdir()
    (tmp_path / 'mmnfn/__init__.py').write_text('raise ImportError("two stacks are mixed")')
    command = [sys.executable, str(ROOT / 'tools/collect_env.py')]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert done.returncode == 1 and 'mmnfn cannot be imported: two stacks are mixed' in done.stdout
    assert 'Stack: official: ' in done.stdout and 'Stack: OneDL: ' in done.stdout and 'Traceback' not in done.stderr
