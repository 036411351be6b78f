"""One small simulated world, and the unbroken runs that broken ones are compared with."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / 'tests')]

from commands import command_of, succeed, tool  # noqa: E402  found by the line above

WORLD = '--subjects 2 --sessions 1 --seed 3 --voxel-mm 4 --stimulus-size 64 --downstream 12 3 10 3 --downstream-size 96'


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """Folder with the simulated release, COCO and ADE20K under ``sim``, and ROI stores under ``store``."""
    folder = tmp_path_factory.mktemp('data')
    succeed(tool('simulate_nsd', folder / 'sim', *WORLD.split(), '--workers', 1), folder / 'sim')
    succeed(command_of('prepare', folder / 'store', folder), folder / 'store')
    return folder


@pytest.fixture(scope='session')
def unbroken(data, tmp_path_factory):
    """Function: name of a run → folder that it wrote undisturbed, seconds it took."""
    made = {}

    def get(run):
        if run not in made:
            folder = tmp_path_factory.mktemp('unbroken') / 'out'
            made[run] = folder, succeed(command_of(run, folder, data), folder)
        return made[run]

    return get
