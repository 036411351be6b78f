"""tools/test.py for retrieval: two processes give the metrics and the dump of one."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from toy_training import CONFIG, SAMPLES, run, without_gpu  # noqa: F401  a fixture

from mmnfn.evaluation import retrieval_metrics, retrieval_ranks
from mmnfn.evaluation.dump import read_predictions


@pytest.fixture(scope='module')
def tested(tmp_path_factory):
    """Metrics and dumps of one process and of two, for two responses to most images; 5 batches do not divide by 2."""
    folder = tmp_path_factory.mktemp('tested')
    (folder / 'toy.py').write_text(CONFIG)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config.fromstring(CONFIG, '.py').model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'model.pth')
    found = []
    for processes in (1, 2):
        out, dump = folder / f'{processes}.json', folder / f'{processes}.pkl'
        options = ('test_dataloader.dataset.jitter=False', 'test_dataloader.dataset.trials=True')
        args = [folder / 'toy.py', folder / 'model.pth', '--work-dir', folder / 'work', '--out', out, '--dump', dump]
        codes, outputs = run(folder, 'test', *args, '--cfg-options', *options, processes=processes)
        assert not any(codes), '\n'.join(outputs)
        found.append((json.loads(out.read_text()), read_predictions(dump)))
    return found


def test_metrics_do_not_depend_on_the_number_of_processes(tested):
    assert tested[0][0] == tested[1][0]
    for subject in ('', 'subj01_', 'subj02_'):
        for direction in ('image_to_brain', 'brain_to_image'):
            for name in ('top1', 'top5', 'median_rank'):
                for suffix in ('', '_low', '_high', '_chance'):
                    assert f'retrieval/{subject}{direction}_{name}{suffix}' in tested[0][0]


def test_dump_has_every_sample_once(tested):
    one, two = tested[0][1], tested[1][1]
    keys = [(sample['subject'], sample['image_id']) for sample in one]
    assert keys == sorted(keys) == [(f'subj0{k + 1}', i // 2) for k, size in enumerate(SAMPLES) for i in range(size)]
    for first, second in zip(one, two):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name], name


def test_metrics_can_be_computed_from_the_dump(tested):
    metrics, samples = tested[1]
    own = [sample for sample in samples if sample['subject'] == 'subj01']
    image, fmri = (np.stack([sample[f'{kind}_embedding'].numpy() for sample in own]) for kind in ('image', 'fmri'))
    image_id = [sample['image_id'] for sample in own]
    metrics_of_dump = retrieval_metrics(retrieval_ranks(image, fmri, image_id, image_id))
    for name, value in metrics_of_dump.items():
        assert metrics[f'retrieval/subj01_image_to_brain_{name}'] == pytest.approx(value.item())
