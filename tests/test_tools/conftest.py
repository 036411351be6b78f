"""Running the commands of ``tools/`` in this process."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture()
def run(capsys, monkeypatch):
    """Run a tool's ``main``; exit code, stdout and stderr."""

    def call(tool, *arguments):
        spec = importlib.util.spec_from_file_location(tool, ROOT / 'tools' / f'{tool}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py'])
        capsys.readouterr()
        code = module.main([str(a) for a in arguments])
        return (code, *capsys.readouterr())

    return call
