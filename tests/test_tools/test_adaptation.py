"""tools/train.py adapts a pretrained model to a new person, and what it writes is a whole model that says so."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from small_configs import make_small_pretraining

from mmnfn.apis import BrainImageRetriever
from mmnfn.engine.checkpoint import export_checkpoint
from mmnfn.engine.provenance import provenance
from mmnfn.models import subject_adapter
from mmnfn.nsd import ROIStore

ROOT = Path(__file__).resolve().parents[2]
MAPS = {'': ('fmri_encoder.embedding.adapter', 'encoding.fields'), '_encoding': ('encoding.fields',)}
NEW = dict(subjects=[2], split='train', indices=9)


def main(tool, *arguments):
    """Run a tool in this process; its exit code."""
    return runpy.run_path(str(ROOT / f'tools/{tool}.py'))['main']([str(argument) for argument in arguments])


def write_small(name, folder, store, subject):
    """Write a small version of a config, whose work folder is beside it."""
    cfg = Config.fromfile(ROOT / f'configs/nfn/{name}.py')
    make_small_pretraining(cfg, 'swin-s', [subject])
    for loader in filter(None, (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)):
        loader.dataset.data_root = str(store)
    if 'adapt' in name:
        cfg.load_from = str(folder / 'pretrain' / 'epoch_1.pth')
        cfg.train_cfg.max_iters = cfg.default_hooks.checkpoint.interval = 3
        cfg.train_dataloader.dataset.indices = NEW['indices']  # fewer than a batch
        cfg.train_dataloader.batch_size = 16
    else:
        cfg.train_cfg.max_epochs = 1
    cfg.work_dir = str(folder / name.split('_')[0])
    cfg.dump(folder / f'{name.split("_")[0]}.py')


@pytest.fixture(scope='module', params=MAPS, ids=('towers', 'encoding'))
def run(request, store, tmp_path_factory):
    """A pretraining with subject 1, adapted to subject 2: folder, prefixes of the maps, and both checkpoints."""
    folder = tmp_path_factory.mktemp('adaptation')
    for name in (f'pretrain_nsd{request.param}', f'adapt_subject{request.param}'):
        write_small(name, folder, store, 1 if 'pretrain' in name else 2)
        assert main('train', folder / f'{name.split("_")[0]}.py') == 0
    paths = folder / 'pretrain/epoch_1.pth', folder / 'adapt/iter_3.pth'
    return folder, MAPS[request.param], [torch.load(path, weights_only=False) for path in paths]


def test_nothing_but_the_map_of_the_new_person_moves(run):
    _, maps, (pretrained, adapted) = run
    old, new = pretrained['state_dict'], adapted['state_dict']
    assert old.keys() == new.keys()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved == {f'{own}.{kind}' for own in maps for kind in ('maps', 'trained_subjects')}
    for own in maps:
        rows = [torch.equal(*pair) for pair in zip(old[f'{own}.maps'], new[f'{own}.maps'])]
        assert rows == [True, False, *[True] * 6]
        assert new[f'{own}.trained_subjects'].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_the_backbone_is_the_pretrainings_and_says_so(run, tmp_path):
    """It has not seen the new person, so encoding scores on them are held out."""
    folder, _, (_, adapted) = run
    of_pretraining, of_adaptation = (
        torch.load(folder / name / 'backbone_latest.pth', weights_only=True) for name in ('pretrain', 'adapt')
    )
    old, new = of_pretraining['state_dict'], of_adaptation['state_dict']
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    by_tool = export_checkpoint(str(folder / 'adapt/iter_3.pth'), str(tmp_path / 'backbone.pth'))
    for meta in (adapted['meta']['mmnfn'], of_adaptation['meta'], by_tool):
        assert (meta['subjects'], meta['split'], meta['adapted']) == ([1], 'train', [NEW])
    assert 'adapted' not in of_pretraining['meta']


def test_the_adapted_model_is_tested_and_one_that_was_not_is_named(run, monkeypatch, capsys, store):
    folder, maps, _ = run
    said = []
    monkeypatch.setattr(subject_adapter, 'print_log', lambda text, *_: said.append(text))
    for checkpoint, named in (('adapt/iter_3.pth', False), ('pretrain/epoch_1.pth', True)):
        said.clear()
        assert main('test', folder / 'adapt.py', folder / checkpoint) == 0
        assert [text.startswith('subj02 was not trained with subj01') for text in said] == [True] * named * len(maps)
        assert ('which train_dataloader has not' in capsys.readouterr().out) == named
    assert main('test', folder / 'pretrain.py', folder / 'adapt/iter_3.pth') == 0
    assert 'which train_dataloader has not' not in capsys.readouterr().out, 'it still knows subject 1'


def test_responses_of_the_adapted_person_are_embedded(run, store, monkeypatch):
    folder, maps, _ = run
    if maps == MAPS['_encoding']:
        with pytest.raises(ValueError, match='has no fMRI encoder'):
            BrainImageRetriever(folder / 'adapt.py', folder / 'adapt/iter_3.pth')
        return
    said, found = [], []
    monkeypatch.setattr(subject_adapter, 'print_log', lambda text, *_: said.append(text))
    new = ROIStore(store / 'subj02.h5')
    for checkpoint in ('adapt/iter_3.pth', 'pretrain/epoch_1.pth'):
        retriever = BrainImageRetriever(folder / 'adapt.py', folder / checkpoint)
        found.append(retriever.embed_responses(new.responses[:4], new))
        assert len(said) == len(found) - 1
    assert not np.allclose(*found)


@pytest.mark.parametrize(
    'load_from, named', [('None', 'load_from is not set'), ('backbone_latest.pth', 'does not load into the model')]
)
def test_a_model_that_was_not_trained_whole_is_not_adapted(run, capsys, load_from, named):
    folder, _, _ = run
    load_from = load_from if load_from == 'None' else folder / 'pretrain' / load_from
    options = ('--work-dir', folder / 'refused', '--cfg-options', f'load_from={load_from}')
    assert main('train', folder / 'adapt.py', *options) == 2
    error = capsys.readouterr().err.strip()
    assert named in error.splitlines()[-1] and not list((folder / 'refused').glob('*.pth'))


def test_adaptations_are_listed_one_after_another():
    def data(subject):
        return dict(model=dict(train_maps_only=True), train_dataloader=dict(dataset=dict(subjects=[subject])))

    first = provenance(data(2), dict(subjects=[1], split='train'))
    second = provenance(data(3), first)
    assert (second['subjects'], [one['subjects'] for one in second['adapted']]) == ([1], [[2], [3]])
    assert provenance(data(3), second) == second, 'after a resume'
    assert 'subjects' not in provenance(data(2)), 'the pretraining is not known'
