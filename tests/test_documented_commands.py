"""The documented commands and Python snippets work, from NSD's files to the paper's figures."""

import json
import os

import pytest
import torch
from documented import SNIPPETS
from documented_home import here, make_home, outcome, typed
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmnfn.datasets import collate_subject_batch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
FIGURES = ('figure3.png', 'rois.png', 'brain.png', 'report/report.html', 'comparison/comparison.png')
WEIGHTS = ('random.pth', 'backbone.pth', 'work_dirs/pretrain_nsd/backbone_latest.pth', 'published/metafile.yml')


@pytest.fixture(scope='module')
def home(world, tmp_path_factory):
    """A user's folder in which every command has been typed: the folder, and command → what went wrong, or None."""
    home = tmp_path_factory.mktemp('home')
    make_home(home, world)
    before = os.getcwd()
    os.chdir(home)
    try:
        yield home, {command: outcome(home, command) for command in typed()}
    finally:
        os.chdir(before)


@pytest.mark.parametrize('command', typed())
def test_commands_end_well(home, command):
    wrong = home[1][command]
    assert wrong is None, f'{command}\n{wrong}'


@pytest.mark.parametrize('name', [*FIGURES, *WEIGHTS, 'embeddings.pkl', 'commands.sh'])
def test_commands_leave_the_documented_files(home, name):
    assert (home[0] / name).stat().st_size > 200


def test_commands_leave_the_documented_metrics(home):
    metrics = json.loads((home[0] / 'metrics.json').read_text())
    assert 0 <= metrics['retrieval/image_to_brain_top1'] <= 1 and metrics['retrieval/chance'] < 0.05
    tested = [json.loads(path.read_text()) for path in (home[0] / 'work_dirs').glob('*/*/*.json')]
    assert {'coco/bbox_mAP', 'coco/segm_mAP', 'encoding/pcc'} <= {name for content in tested for name in content}


def test_tensorboard_has_the_curves(home):
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    tags = set()
    for path in (home[0] / 'work_dirs/pretrain_nsd').rglob('events.out.tfevents.*'):
        accumulator = events.EventAccumulator(str(path))
        accumulator.Reload()
        tags.update(accumulator.Tags()['scalars'])
    assert {'loss_con', 'temperature', 'batch_top1', 'bfg_streams', 'retrieval/image_to_brain_top1'} <= tags


@pytest.mark.parametrize('snippet', [s for s in SNIPPETS if '_base_' not in s[1]], ids=lambda s: s[0].stem)
def test_snippets_run(home, snippet):
    found = {}
    exec(here(snippet[1]), found)
    if 'brains' in found:
        assert found['brains'].shape == (10, 32) and found['images'].shape == (2, 32)
        assert sorted(found['index'][0]) == [0, 1] and (found['similarity'][:, 0] >= found['similarity'][:, 1]).all()
    elif 'store' in found:
        assert len(found['store'].roi('floc-faces')) and len(found['store'].responses) == len(found['store'].image_id)


@pytest.mark.parametrize('snippet', [s for s in SNIPPETS if '_base_' in s[1]], ids=lambda s: s[1].split('\n')[1][:20])
def test_config_snippets_train(home, snippet):
    """An ROI set and a backbone of one's own."""
    path = home[0] / 'own.py'
    path.write_text(snippet[1])
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model, data = MODELS.build(cfg.model), DATASETS.build(cfg.train_dataloader.dataset)
        batch = model.data_preprocessor(collate_subject_batch([data[k] for k in range(3)]), True)
    losses = model.train()(**batch, mode='loss')
    assert all(torch.isfinite(value) for value in losses.values()) and losses['loss_con'] > 0
    assert data.roi_names == tuple(cfg.model.fmri_encoder.roi_names)
