"""Without noise, training comes close to an oracle that knows the true tuning; about 20 minutes on two cores."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmnfn.datasets import NSDDataset
from mmnfn.engine.launch import child_environment
from mmnfn.nsd import NSDLayout
from mmnfn.nsd.preparation import prepare
from mmnfn.simulation.world import WorldConfig, simulate

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 24


@pytest.fixture(scope='module')
def clean_world(tmp_path_factory):
    """Simulate a subject with 5000 images, 150 of them held out, and hardly any noise; with a store at 64 pixels."""
    world = tmp_path_factory.mktemp('clean') / 'world'
    simulate(world, WorldConfig(subjects=1, sessions=(20,), seed=1, shared_fraction=0.03, stimulus_size=64, snr=100))
    prepare(NSDLayout(world / 'nsd'), world / 'store', ['subj01'], image_size=64, progress=False)
    return world


def oracle_top1(world):
    """Compute the share of held-out images whose response predicted by the true tuning finds the measured one."""
    dataset = NSDDataset(world / 'store', [1], 'images_64.h5', split='test', pipeline=[])
    samples = [dataset[i] for i in range(len(dataset))]
    measured = np.stack([sample['responses'] for sample in samples])
    geometry = samples[0]['geometry'].coordinates.numpy()
    with h5py.File(world / 'truth.h5') as truth, h5py.File(world / 'store/subj01.h5') as store:
        group = truth['subj01']
        rows = np.searchsorted(group['image_id'][()], [sample['image_id'] for sample in samples])
        place = {tuple(voxel): i for i, voxel in enumerate(group['voxel'][()])}
        by_coordinate = {tuple(c): tuple(v) for c, v in zip(store['coordinates'][()], store['voxel'][()])}
        columns = [place[by_coordinate[tuple(c)]] for c in geometry]
        predicted = group['responses'][()][rows][:, columns]
    unit = [(x - x.mean(0)) / np.maximum(x.std(0), 1e-6) for x in (predicted, measured)]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in unit]
    return float(((unit[0] @ unit[1].T).argmax(1) == np.arange(len(rows))).mean()), len(rows)


@pytest.mark.slow
def test_retrieval_reaches_nine_tenths_of_the_oracle(clean_world, tmp_path):
    oracle, count = oracle_top1(clean_world)
    assert count == 150 and oracle > 0.95
    options = [f'{kind}_dataloader.dataset.data_root={clean_world / "store"}' for kind in ('train', 'val', 'test')]
    options += [f'{kind}_dataloader.dataset.subjects=[1]' for kind in ('train', 'val', 'test')]
    options += ['train_dataloader.batch_size=64', f'train_cfg.max_epochs={EPOCHS}', f'param_scheduler.1.end={EPOCHS}']
    options += ['default_hooks.checkpoint.interval=1']
    out = ['--out', tmp_path / 'top1.json']
    for tool, *arguments in (['train.py', '--no-validate'], ['test.py', tmp_path / f'epoch_{EPOCHS}.pth', *out]):
        command = [sys.executable, ROOT / 'tools' / tool, ROOT / 'configs/demo/pretrain.py', *arguments]
        command += ['--work-dir', tmp_path]
        subprocess.run([*map(str, command), '--cfg-options', *options], check=True, env=child_environment())
    metrics = json.loads((tmp_path / 'top1.json').read_text())
    top1 = metrics['retrieval/image_to_brain_top1']
    print(f'held-out image to brain top-1 of {count}: {top1:.3f}, oracle {oracle:.3f}')
    assert top1 >= 0.9 * oracle
