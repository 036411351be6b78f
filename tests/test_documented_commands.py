"""What people are told to type does what it says, from the files of NSD to the pictures of the paper."""

import json
import os

import pytest
import torch
from documented import SNIPPETS
from documented_home import make_home, outcome, typed
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmnfn.datasets import collate_subject_batch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
PICTURES = ('figure3.png', 'rois.png', 'brain.png')
PAGES = ('report/report.html',)
MODELS_WRITTEN = ('random.pth', 'backbone.pth', 'work_dirs/pretrain_nsd/backbone_latest.pth', 'published/metafile.yml')


@pytest.fixture(scope='module')
def home(world, tmp_path_factory):
    """A user's folder, in which everything has been typed: the folder, and command → what went wrong, or None."""
    home = tmp_path_factory.mktemp('home')
    make_home(home, world)
    before = os.getcwd()
    os.chdir(home)
    try:
        yield home, {command: outcome(home, command) for command in typed()}
    finally:
        os.chdir(before)


@pytest.mark.parametrize('command', typed())
def test_it_ends_well(home, command):
    wrong = home[1][command]
    assert wrong is None, f'{command}\n{wrong}'


@pytest.mark.parametrize('name', [*PICTURES, *PAGES, *MODELS_WRITTEN, 'embeddings.pkl', 'commands.sh'])
def test_it_leaves_what_it_says(home, name):
    assert (home[0] / name).stat().st_size > 200


def test_figures_are_those_that_are_promised(home):
    metrics = json.loads((home[0] / 'metrics.json').read_text())
    assert 0 <= metrics['retrieval/image_to_brain_top1'] <= 1 and metrics['retrieval/chance'] < 0.05
    tested = [json.loads(path.read_text()) for path in (home[0] / 'work_dirs').glob('*/*/*.json')]
    names = {name for content in tested for name in content}
    assert {'coco/bbox_mAP', 'coco/segm_mAP', 'encoding/pcc'} <= names


def test_tensorboard_has_the_curves(home):
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    tags = set()
    for path in (home[0] / 'work_dirs/pretrain_nsd').rglob('events.out.tfevents.*'):
        accumulator = events.EventAccumulator(str(path))
        accumulator.Reload()
        tags.update(accumulator.Tags()['scalars'])
    assert {'loss_con', 'temperature', 'batch_top1', 'bfg_streams', 'retrieval/image_to_brain_top1'} <= tags


@pytest.mark.parametrize('snippet', [s for s in SNIPPETS if 'mmnfn.datasets import' in s[1]], ids=lambda s: s[0].stem)
def test_python(home, snippet):
    found = {}
    exec(snippet[1].replace("device='cuda'", "device='cpu'").replace('epoch_100', 'epoch_1'), found)
    if 'brains' in found:
        assert found['brains'].shape == (10, 32) and found['images'].shape == (2, 32)
        assert sorted(found['index'][0]) == [0, 1] and (found['similarity'][:, 0] >= found['similarity'][:, 1]).all()
    else:
        assert found['faces'].shape == (len(found['store'].image_id), len(found['store'].roi('floc-faces')))


@pytest.mark.parametrize('snippet', [s for s in SNIPPETS if '_base_' in s[1]], ids=lambda s: s[1].split('\n')[1][:20])
def test_configs(home, snippet):
    """They train: an ROI set of one's own, another backbone."""
    path = home[0] / 'own.py'
    path.write_text(snippet[1])
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model, data = MODELS.build(cfg.model), DATASETS.build(cfg.train_dataloader.dataset)
        batch = model.data_preprocessor(collate_subject_batch([data[k] for k in range(3)]), True)
    losses = model.train()(**batch, mode='loss')
    assert all(torch.isfinite(value) for value in losses.values()) and losses['loss_con'] > 0
    assert data.roi_names == tuple(cfg.model.fmri_encoder.roi_names)
