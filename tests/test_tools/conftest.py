"""Running the commands of ``tools/`` in this process."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture()
def run(capsys):
    """Run a tool's ``main``; exit code, stdout and stderr."""

    def call(tool, *arguments):
        spec = importlib.util.spec_from_file_location(tool, ROOT / 'tools' / f'{tool}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capsys.readouterr()
        code = module.main([str(a) for a in arguments])
        return (code, *capsys.readouterr())

    return call
