"""One small simulated world, its ROI stores, and the unbroken runs that the killed ones are compared with.

They are kept in the folder that the environment variable TORTURE_FOLDER names, if it does, for the next call.
"""

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1] / 'tests')]

from commands import KILLS, prepare, succeed, tool, train  # noqa: E402  found by the line above

WORLD = '--subjects 2 --sessions 1 --seed 3 --voxel-mm 4 --stimulus-size 64 --downstream 12 3 10 3 --downstream-size 96'


def pytest_terminal_summary(terminalreporter):
    """How many processes were killed, of what."""
    if KILLS:
        counts = Counter(name.split('_')[0] for name, _ in KILLS)
        text = ', '.join(f'{count} of {name}' for name, count in counts.items())
        terminalreporter.write_line(f'{len(KILLS)} runs ended by SIGKILL: {text}')


@pytest.fixture(scope='session')
def make(tmp_path_factory):
    """Function that runs a command unless what it makes has been kept; the folder, and the seconds that it took."""
    base = Path(os.environ.get('TORTURE_FOLDER') or tmp_path_factory.mktemp('made')).absolute()

    def get(name, command):
        folder = base / name
        record = base / f'{name}.json'
        if not record.is_file():
            base.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            record.write_text(json.dumps(succeed(command(folder), folder).seconds))
        return folder, json.loads(record.read_text())

    return get


@pytest.fixture(scope='session')
def world(make):
    """Two subjects with a session each, and pictures for detection and segmentation."""
    return make('sim', lambda folder: tool('simulate_nsd', folder, *WORLD.split(), '--workers', 1))[0]


@pytest.fixture(scope='session')
def prepared(world, make):
    """ROI stores, and the seconds that it took to make them."""
    return make('store', lambda folder: prepare(world, folder))


@pytest.fixture(scope='session')
def store(prepared):
    """Folder of the ROI stores."""
    return prepared[0]


@pytest.fixture(scope='session')
def data_roots(world, store):
    """Config → where its data are."""
    return dict(pretrain=store, mask_rcnn=world / 'coco', upernet=world / 'ADEChallengeData2016')


@pytest.fixture(scope='session')
def unbroken(data_roots, make):
    """Function that gives work folder and seconds of the unbroken run of a config."""

    def get(config, processes=1):
        options = [f'data_root={data_roots[config]}']
        return make(f'{config}_{processes}', lambda work: train(config, work, *options, processes=processes))

    return get
