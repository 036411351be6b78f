"""A study of toy tools."""

import pytest
import yaml
from toy_study import STUDY, write_tools

from mmnfn.experiments import read_study


@pytest.fixture()
def toy(tmp_path, monkeypatch):
    """A repository of toy tools, and a function that reads a study in it."""
    root = tmp_path / 'root'
    write_tools(root)
    (tmp_path / 'given.pth').write_text('weights')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TOY_LOG', str(tmp_path / 'log'))

    def read(**changes):
        (tmp_path / 'study.yml').write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return read_study(tmp_path / 'study.yml', root, tmp_path / 'work')

    return read
