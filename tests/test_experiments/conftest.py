"""A study of toy tools in the current folder."""

import pytest
from toy_study import Toy


@pytest.fixture()
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TOY_LOG', str(tmp_path / 'log'))
    return Toy(tmp_path)
