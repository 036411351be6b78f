"""The file of predictions: every sample once, whole, and in order."""

import pickle

import pytest
import torch

from mmnfn import inert_pickle
from mmnfn.evaluation import gathered_metric
from mmnfn.evaluation.dump import DumpSubjectResults, read_predictions
from mmnfn.structures import SubjectGeometry


def rank(path, *batches):
    """The metric of a process after some batches of (subject, image ids, responses)."""
    metric = DumpSubjectResults(str(path))
    for subject, image_id, values in batches:
        samples = [
            dict(image_id=i, image_embedding=torch.full((2,), v), roi_present=torch.tensor([True, False]), note='any')
            for i, v in zip(image_id, values)
        ]
        geometry = SubjectGeometry(subject, ('streams',), (3,), torch.zeros(3, 3))
        metric.process(dict(geometry=geometry, responses=torch.tensor(values)[:, None].repeat(1, 3)), samples)
    return metric


@pytest.fixture()
def gathered(monkeypatch):
    """A function that lets a metric see the results of several ranks."""

    def gather(*ranks):
        results = [result for metric in ranks for result in metric.results]
        monkeypatch.setattr(gathered_metric, 'collect_results', lambda *_: results)
        return ranks[0]

    return gather


def test_every_sample_once_with_all_its_fields(gathered, tmp_path):
    """Image 4 of subject 1 has two responses; that of image 2 was dealt to both ranks; subject 2 saw image 4, too."""
    path = tmp_path / 'a/predictions.pkl'
    ranks = (
        rank(path, ('subj02', [4], [5.0]), ('subj01', [4, 2], [1.0, 2.0])),
        rank(path, ('subj01', [4, 2], [3.0, 2.0])),
    )
    assert gathered(*ranks).evaluate(4) == {}
    predictions = pickle.loads(path.read_bytes())
    assert [(p['subject'], p['image_id']) for p in predictions] == [
        ('subj01', 2),
        ('subj01', 4),
        ('subj01', 4),
        ('subj02', 4),
    ]
    values = [p['image_embedding'].tolist() for p in predictions]
    assert values[0] == [2, 2] and sorted(values[1:3]) == [[1, 1], [3, 3]] and values[3] == [5, 5]
    for prediction in predictions:
        assert set(prediction) == {'subject', 'image_id', 'photo_id', 'image_embedding', 'roi_present', 'note'}
        assert prediction['roi_present'].tolist() == [True, False] and prediction['note'] == 'any'


def test_a_missing_sample_writes_nothing(gathered, tmp_path):
    metric = gathered(rank(tmp_path / 'predictions.pkl', ('subj01', [4, 2], [1.0, 2.0])))
    with pytest.raises(RuntimeError, match='2 distinct samples of a dataset of 3'):
        metric.evaluate(3)
    assert not list(tmp_path.iterdir())


def test_a_sample_is_kept_without_its_batch_and_read_back_however_many_there_are(gathered, tmp_path, monkeypatch):
    """Tensors of a sample are rows of a batch's; NSD's test images make more operations than a checkpoint may have."""
    path, batch = tmp_path / 'predictions.pkl', torch.randn(64, 512)
    metric = DumpSubjectResults(str(path))
    samples = [dict(image_id=i, image_embedding=batch[i], fmri_embedding=batch[i]) for i in range(64)]
    geometry = SubjectGeometry('subj01', ('streams',), (3,), torch.zeros(3, 3))
    metric.process(dict(geometry=geometry, responses=torch.arange(192.0).view(64, 3)), samples)
    gathered(metric).evaluate(64)
    assert 2 * batch.nbytes < path.stat().st_size < 3 * batch.nbytes
    monkeypatch.setattr(inert_pickle, 'MAX_OPERATIONS', 100)
    assert [p['image_embedding'].tolist() for p in read_predictions(path)] == batch.tolist()
