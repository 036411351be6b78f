"""Settings and simulated data of all tests."""

import contextlib
import random
import runpy
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from nsd_damage import Files
from nsd_tree import write_tree

with contextlib.suppress(ImportError):
    import submitit  # noqa: F401  importing it closes the log files of all loggers

# Test tensors are tiny: more threads only wait for each other, up to fifty times longer on a busy machine.
torch.set_num_threads(1)

REAL_DATA = Path(__file__).resolve().parents[2] / 'shared/data'
TOOLS = Path(__file__).resolve().parents[1] / 'tools'


@pytest.fixture(autouse=True)
def seeds():
    """Seed all random numbers, so that no test depends on those before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    """A small simulated world: 2 subjects (2 sessions and 1), 64-pixel stimuli."""
    from mmnfn.simulation.world import WorldConfig, simulate

    out = tmp_path_factory.mktemp('sim') / 'world'
    config = WorldConfig(
        subjects=2,
        sessions=(2, 1),
        seed=3,
        voxel_mm=5.0,
        stimulus_size=64,
        downstream=(6, 4, 5, 3),
        downstream_size=96,
        workers=1,
    )
    simulate(out, config)
    return out


@pytest.fixture(scope='session')
def store(world, tmp_path_factory):
    """ROI stores of both subjects of :func:`world` and their images at 32 pixels."""
    from mmnfn.nsd import NSDLayout
    from mmnfn.nsd.preparation import prepare

    out = tmp_path_factory.mktemp('store')
    prepare(NSDLayout(world / 'nsd'), out, ['subj01', 'subj02'], image_size=32, progress=False)
    return out


@pytest.fixture(scope='session')
def real_data():
    """Folder of real COCO, ADE20K and NSD-design samples; skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip('the real data samples are not beside this checkout')
    return REAL_DATA


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """A release tree of a few dozen voxels: subj01 with 3 sessions, subj02 with 1. Leave it as it is."""
    return Files(write_tree(tmp_path_factory.mktemp('tiny') / 'nsd').root)


@pytest.fixture(scope='session')
def twins(store, tmp_path_factory):
    """Stores of two subjects who have the same voxels, saw the same images and responded alike."""
    folder = tmp_path_factory.mktemp('twins')
    shutil.copy(store / 'images_32.h5', folder)
    for subject in ('subj01', 'subj02'):
        path = shutil.copy(store / 'subj01.h5', folder / f'{subject}.h5')
        with h5py.File(path, 'a') as file:
            file.attrs['subject'] = subject
    return folder


@pytest.fixture()
def tree(tiny, tmp_path):
    """A copy of ``tiny`` that a test may damage."""
    return Files(shutil.copytree(tiny.root, tmp_path / 'nsd'))


@pytest.fixture()
def run(capsys, monkeypatch):
    """Run a tool's ``main``; exit code, stdout and stderr."""

    def call(tool, *arguments):
        main = runpy.run_path(str(TOOLS / f'{tool}.py'))['main']
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py'])
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return (code, *capsys.readouterr())

    return call
