"""The file of predictions: every sample once, whole, and in order."""

import os
import pickle

import pytest
import torch

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


def test_a_sample_is_kept_without_its_batch_and_read_back(gathered, tmp_path):
    """Tensors of a sample are rows of a batch's."""
    path, batch = tmp_path / 'predictions.pkl', torch.randn(64, 512)
    metric = DumpSubjectResults(str(path))
    samples = [dict(image_id=i, image_embedding=batch[i], fmri_embedding=batch[i]) for i in range(64)]
    geometry = SubjectGeometry('subj01', ('streams',), (3,), torch.zeros(3, 3))
    metric.process(dict(geometry=geometry, responses=torch.arange(192.0).view(64, 3)), samples)
    gathered(metric).evaluate(64)
    assert 2 * batch.nbytes < path.stat().st_size < 3 * batch.nbytes
    assert [p['image_embedding'].tolist() for p in read_predictions(path)] == batch.tolist()


class Command:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_files_that_are_no_predictions_are_refused_and_not_run(tmp_path):
    path, trace = tmp_path / 'a.pkl', tmp_path / 'trace'
    whole = pickle.dumps([dict(subject='subj01', image_id=1, image_embedding=torch.ones(9))])
    for content, words in {
        pickle.dumps([dict(subject='subj01', image_id=1, x=Command(str(trace)))]): 'ForeignName: posix.mkdir',
        pickle.dumps([dict(score=1)]): 'no list of predictions',
        whole[: len(whole) // 2]: 'truncated',
        b'text': 'UnpicklingError',
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'a.pkl cannot be read as predictions .*{words}.*Make it again'):
            read_predictions(path)
    assert not trace.exists()
