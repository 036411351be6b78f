"""Retrieval against a loop, ties, and collection from uneven ranks."""

import numpy as np
import pytest
import torch

from mmnfn.evaluation import RetrievalMetric, gathered_metric, retrieval_figures


def slow_ranks(queries, gallery):
    ranks = []
    for i, q in enumerate(queries):
        cosines = [q @ g / np.linalg.norm(q) / np.linalg.norm(g) for g in gallery]
        ranks.append(1 + sum(c >= cosines[i] for j, c in enumerate(cosines) if j != i))
    return np.asarray(ranks)


def test_against_a_loop():
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(40, 6))
    queries = gallery + rng.normal(size=(40, 6))
    ranks = slow_ranks(queries, gallery)
    assert 1 < np.median(ranks) < 20
    figures = retrieval_figures(queries, gallery)
    assert figures == dict(top1=(ranks == 1).mean(), top5=(ranks <= 5).mean(), median_rank=np.median(ranks))


def test_constant_embeddings_find_nothing():
    """A collapsed tower ties everywhere; a tie must not count as a hit."""
    assert retrieval_figures(np.ones((10, 4)), np.ones((10, 4)))['top1'] == 0


def sample(subject, image_id, image, fmri):
    return dict(
        subject=subject, image_id=image_id, image_embedding=torch.tensor(image), fmri_embedding=torch.tensor(fmri)
    )


def test_metric_averages_over_subjects_and_counts_each_sample_once(monkeypatch):
    eye = np.eye(4, dtype=np.float32)
    good = [sample('subj01', i, eye[i], eye[i]) for i in range(4)]
    bad = [sample('subj02', i, eye[i], eye[(i + 1) % 2]) for i in range(2)]
    ranks = [good[:3] + bad[:1], good[2:] + bad]  # uneven, and two samples were dealt twice
    results = []
    for part in ranks:
        metric = RetrievalMetric()
        metric.process({}, part)
        results.append(list(metric.results))
    monkeypatch.setattr(gathered_metric, 'all_gather_object', lambda _: results)
    figures = RetrievalMetric().evaluate(6)
    assert figures['retrieval/image_to_brain_top1'] == 0.5
    assert figures['retrieval/subj01_top1'] == 1 and figures['retrieval/subj02_top1'] == 0
    assert figures['retrieval/chance'] == pytest.approx((1 / 4 + 1 / 2) / 2)
    with pytest.raises(RuntimeError, match='6 distinct samples of a dataset of 7'):
        RetrievalMetric().evaluate(7)
