"""One small simulated world, its ROI stores, and the unbroken runs that the killed ones are compared with."""

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
def world(tmp_path_factory):
    """Two subjects with a session each, and pictures for detection and segmentation."""
    folder = tmp_path_factory.mktemp('world') / 'sim'
    succeed(tool('simulate_nsd', folder, *WORLD.split(), '--workers', 1), folder)
    return folder


@pytest.fixture(scope='session')
def prepared(world, tmp_path_factory):
    """ROI stores, and the seconds that it took to make them."""
    folder = tmp_path_factory.mktemp('prepared') / 'store'
    return folder, succeed(prepare(world, folder), folder).seconds


@pytest.fixture(scope='session')
def store(prepared):
    """Folder of the ROI stores."""
    return prepared[0]


@pytest.fixture(scope='session')
def data_roots(world, store):
    """Config → where its data are."""
    return dict(pretrain=store, mask_rcnn=world / 'coco', upernet=world / 'ADEChallengeData2016')


@pytest.fixture(scope='session')
def unbroken(data_roots, tmp_path_factory):
    """Function that gives work folder and seconds of the unbroken run of a config."""
    runs = {}

    def get(config, processes=1):
        if (config, processes) not in runs:
            work = tmp_path_factory.mktemp('unbroken') / f'{config}_{processes}'
            command = train(config, work, f'data_root={data_roots[config]}', processes=processes)
            runs[config, processes] = work, succeed(command, work).seconds
        return runs[config, processes]

    return get
