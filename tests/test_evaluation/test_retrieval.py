"""Retrieval against loops, ties, repeated images, intervals, and collection from uneven ranks."""

import numpy as np
import pytest
import torch

from mmnfn.evaluation import RetrievalMetric, gathered_metric, retrieval, retrieval_metrics, retrieval_ranks
from mmnfn.evaluation.retrieval import Ranks, chance_metrics, ranks_of_predictions


def slow_ranks(queries, gallery, query_id, gallery_id, partner):
    """Rank each query's partner and count the candidates, one cosine at a time."""

    def cosine(i, j):
        return queries[i] @ gallery[j] / np.linalg.norm(queries[i]) / np.linalg.norm(gallery[j])

    ranks, candidates = [], []
    for i in range(len(queries)):
        rivals = [cosine(i, j) for j in range(len(gallery)) if gallery_id[j] != query_id[i]]
        ranks.append(1 + sum(rival >= cosine(i, partner[i]) for rival in rivals))
        candidates.append(1 + len(rivals))
    return ranks, candidates


def noisy(n, dims=6, seed=0):
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(n, dims))
    return gallery + rng.normal(size=(n, dims)), gallery


def test_ranks_equal_a_loop(monkeypatch):
    queries, gallery = noisy(40)
    monkeypatch.setattr(retrieval, 'BLOCK', 16)
    ranks, candidates = slow_ranks(queries, gallery, range(40), range(40), range(40))
    assert 1 < np.median(ranks) < 20
    found = retrieval_ranks(queries, gallery)
    assert found.rank.tolist() == ranks and found.candidates.tolist() == candidates == [40] * 40
    metrics = retrieval_metrics(found)
    assert {name: value.item() for name, value in metrics.items()} == dict(
        top1=np.mean([r == 1 for r in ranks]), top5=np.mean([r <= 5 for r in ranks]), median_rank=np.median(ranks)
    )


def test_an_image_is_no_distractor_for_itself():
    """30 responses to at most 12 images, and the responses against the distinct images."""
    fmri, image = noisy(30, seed=1)
    image_id = np.random.default_rng(2).integers(0, 12, 30) * 7
    unique, first, partner = np.unique(image_id, return_index=True, return_inverse=True)
    image = image[first][partner]
    for arguments in (
        (image, fmri, image_id, image_id, np.arange(30)),
        (fmri, image[first], image_id, unique, partner),
    ):
        ranks, candidates = slow_ranks(*arguments)
        found = retrieval_ranks(*arguments)
        assert found.rank.tolist() == ranks and found.candidates.tolist() == candidates
    # A second response to the image may be nearer to it than the first.
    twins = retrieval_ranks(np.array([[1.0, 0]]), np.array([[0.9, 0.1], [1.0, 0]]), [5], [5, 5])
    assert twins.rank.tolist() == twins.candidates.tolist() == [1]
    with pytest.raises(ValueError, match='same image'):
        retrieval_ranks(image, fmri, image_id, image_id[::-1])


@pytest.mark.parametrize(
    'embeddings', [np.ones((10, 4)), np.zeros((10, 4)), np.full((10, 4), np.nan), 1 + 1e-6 * np.random.rand(10, 4)]
)
def test_collapsed_embeddings_find_nothing(embeddings):
    """They all tie, up to rounding, or are NaN; that must not count as a hit."""
    ranks = retrieval_ranks(embeddings.astype(np.float32), embeddings.astype(np.float32))
    assert ranks.rank.tolist() == [10] * 10 and retrieval_metrics(ranks)['top5'] == 0


def test_metrics_of_resamplings_are_those_of_the_resampled_queries():
    rng = np.random.default_rng(0)
    ranks = Ranks(rng.integers(1, 20, 25), np.full(25, 20), np.arange(25))
    picks = rng.integers(0, 25, (50, 24))  # an even number: the median is a mean of two
    weights = np.stack([np.bincount(pick, minlength=25) for pick in picks])
    metrics = retrieval_metrics(ranks, weights)
    for b, pick in enumerate(picks):
        drawn = ranks.rank[pick]
        expected = ((drawn == 1).mean(), (drawn <= 5).mean(), np.median(drawn))
        assert [metrics[name][b] for name in ('top1', 'top5', 'median_rank')] == pytest.approx(expected)


def test_chance_is_what_guessing_gives():
    candidates = np.array([3, 8, 8, 9, 12])
    rng = np.random.default_rng(0)
    guesses = np.stack([rng.integers(1, m + 1, 20000) for m in candidates])
    chance = chance_metrics(Ranks(candidates, candidates, candidates))
    assert chance['top1'] == pytest.approx((guesses == 1).mean(), abs=0.005)
    assert chance['top5'] == pytest.approx((guesses <= 5).mean(), abs=0.005)
    assert chance['median_rank'] == np.median(guesses) == 4
    for m in (1, 2, 9, 10):
        assert chance_metrics(Ranks(*[np.array([m, m])] * 3))['median_rank'] == (m + 1) / 2


def batch(subject, image_id, image, fmri, responses=None):
    """Make a batch of the dataloader, and the model's predictions for it."""
    samples = [
        dict(subject=subject, image_id=i, image_embedding=torch.tensor(p), fmri_embedding=torch.tensor(q))
        for i, p, q in zip(image_id, image, fmri)
    ]
    return dict(responses=torch.tensor(fmri if responses is None else responses)), samples


def evaluate(monkeypatch, ranks, size, **arguments):
    """Evaluate the batches of several ranks."""
    results = []
    for batches in ranks:
        metric = RetrievalMetric()
        for data, samples in batches:
            metric.process(data, samples)
        results += metric.results
    monkeypatch.setattr(gathered_metric, 'collect_results', lambda *_: results)
    return RetrievalMetric(**arguments).evaluate(size)


def test_metric_averages_over_subjects_and_counts_each_sample_once(monkeypatch):
    eye = np.eye(4, dtype=np.float32)
    good = batch('subj01', [0, 1, 2], eye[:3], eye[:3]), batch('subj01', [2, 3], eye[2:], eye[2:])  # 2 is dealt twice
    bad = batch('subj02', [0, 1], eye[:2], eye[[1, 0]])
    metrics = evaluate(monkeypatch, [[good[0], bad], [good[1]]], 6)
    for direction in ('image_to_brain', 'brain_to_image'):
        assert metrics[f'retrieval/{direction}_top1'] == 0.5
        assert metrics[f'retrieval/subj01_{direction}_top1'] == 1
        assert metrics[f'retrieval/subj02_{direction}_top1'] == 0
        assert metrics[f'retrieval/subj02_{direction}_median_rank'] == 2
        assert metrics[f'retrieval/{direction}_median_rank'] == 1.5
        assert metrics[f'retrieval/{direction}_top1_chance'] == pytest.approx((1 / 4 + 1 / 2) / 2)
        assert metrics[f'retrieval/subj01_{direction}_top5_chance'] == 1
    assert metrics['retrieval/chance'] == metrics['retrieval/image_to_brain_top1_chance']
    short = evaluate(monkeypatch, [[good[0], bad], [good[1]]], 6, per_subject=False, bootstraps=0)
    assert short == {key: metrics[key] for key in short} and len(short) == 13
    with pytest.raises(RuntimeError, match='6 distinct samples of a dataset of 7'):
        evaluate(monkeypatch, [[good[0], bad], [good[1]]], 7)


def test_two_responses_to_one_image_are_two_samples(monkeypatch):
    """The first response to image 3 is nearer to the other image, the second is not."""
    image = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    fmri = np.array([[0.1, 1], [1, 0.1], [0.2, 1]], np.float32)
    metrics = evaluate(monkeypatch, [[batch('subj01', [3, 3, 8], image, fmri)]], 3)
    assert metrics['retrieval/image_to_brain_top1'] == pytest.approx(1 / 3)  # 0.1 < 0.2, and 1 < 1 is false: a tie
    assert metrics['retrieval/brain_to_image_top1'] == pytest.approx(2 / 3)
    assert metrics['retrieval/image_to_brain_top1_chance'] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    assert metrics['retrieval/brain_to_image_top1_chance'] == 1 / 2


def test_crops_of_one_photograph_are_no_candidates_for_each_other(monkeypatch):
    """Images 3 and 4 are crops of one photograph, and each is nearer to the other's response."""
    image = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    fmri = image[[1, 0, 2]]
    data, samples = batch('subj01', [3, 4, 8], image, fmri)
    alone = evaluate(monkeypatch, [[(data, samples)]], 3)
    assert alone['retrieval/image_to_brain_top1'] == alone['retrieval/brain_to_image_top1'] == pytest.approx(1 / 3)
    assert alone['retrieval/chance'] == pytest.approx(1 / 3)
    data = dict(data, photo_id=torch.tensor([3, 3, 8]))
    crops = evaluate(monkeypatch, [[(data, samples)]], 3)
    assert crops['retrieval/image_to_brain_top1'] == crops['retrieval/brain_to_image_top1'] == 1
    assert crops['retrieval/chance'] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    # The same from the file of predictions.
    predictions = [
        dict(subject='subj01', image_id=i, photo_id=p, image_embedding=a, fmri_embedding=b)
        for i, p, a, b in zip((3, 4, 8), (3, 3, 8), image, fmri)
    ]
    assert ranks_of_predictions(predictions).rank.tolist() == [1, 1, 1]


def test_intervals_equal_a_loop_over_resamplings(monkeypatch):
    """Images are drawn once for all subjects; subject 2 lacks some and saw one twice."""
    n, drawings = 40, 60
    ids = [[*range(n)], [3, *range(1, n, 2)]]
    batches, own = [], []
    for k, image_id in enumerate(ids):
        fmri, image = (x.astype(np.float32)[image_id] for x in noisy(n, 4, seed=k))
        fmri[0] *= -1
        batches.append(batch(f'subj0{k + 1}', image_id, image, fmri))
        own.append((image_id, retrieval_ranks(image, fmri, image_id, image_id).rank))
    metrics = evaluate(monkeypatch, [batches], sum(map(len, ids)), bootstraps=drawings, seed=9)
    times = np.random.default_rng(9).multinomial(n, np.full(n, 1 / n), drawings)
    values = np.empty((drawings, 2, 3))
    for b, counts in enumerate(times):
        for k, (image_id, rank) in enumerate(own):
            drawn = np.repeat(rank, [counts[i] for i in image_id])
            values[b, k] = (drawn == 1).mean(), (drawn <= 5).mean(), np.median(drawn)
    for column, name in enumerate(('top1', 'top5', 'median_rank')):
        for prefix, resampled in (('', values.mean(1)), ('subj01_', values[:, 0]), ('subj02_', values[:, 1])):
            key = f'retrieval/{prefix}image_to_brain_{name}'
            expected = np.percentile(resampled[:, column], (2.5, 97.5))
            assert [metrics[f'{key}_low'], metrics[f'{key}_high']] == pytest.approx(expected.tolist())


def test_evaluations_are_independent():
    """After each epoch the same samples have other embeddings."""
    eye = np.eye(6, dtype=np.float32)
    metric = RetrievalMetric(bootstraps=0)
    for fmri, hits in ((eye[::-1].copy(), 0), (eye, 1)):
        metric.process(*batch('subj01', range(6), eye, fmri, responses=eye))
        assert metric.evaluate(6)['retrieval/image_to_brain_top1'] == hits
