"""Settings and simulated data of all tests."""

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch

with contextlib.suppress(ImportError):
    import submitit  # noqa: F401  which closes the log files of all loggers there are when it is imported

# Test tensors are tiny: more threads only wait for each other, up to fifty times longer on a busy machine.
torch.set_num_threads(1)

REAL_DATA = Path(__file__).resolve().parents[2] / 'shared/data'


@pytest.fixture(autouse=True)
def seeds():
    """Random numbers do not depend on which tests came before."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    """A small simulated world: 2 subjects (2 sessions and 1), 64-pixel stimuli, betas as HDF5 and NIfTI."""
    from mmnfn.simulation.world import WorldConfig, simulate

    out = tmp_path_factory.mktemp('sim') / 'world'
    config = WorldConfig(
        subjects=2,
        sessions=(2, 1),
        seed=3,
        voxel_mm=5.0,
        stimulus_size=64,
        nifti=True,
        downstream=(6, 4, 5, 3),
        downstream_size=96,
        workers=1,
    )
    simulate(out, config)
    return out


@pytest.fixture(scope='session')
def store(world, tmp_path_factory):
    """ROI stores of both subjects of :func:`world` and their pictures at 32 pixels."""
    from mmnfn.datasets import NSDLayout
    from mmnfn.datasets.preparation import prepare

    out = tmp_path_factory.mktemp('store')
    prepare(NSDLayout(world / 'nsd'), out, ['subj01', 'subj02'], image_size=32, progress=False)
    return out


@pytest.fixture(scope='session')
def real_data():
    """Folder of real COCO, ADE20K and NSD-design samples; skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip('the real data samples are not beside this checkout')
    return REAL_DATA
