"""Retrieval between images and brain responses."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from mmnfn.registry import METRICS

from .gathered_metric import GatheredMetric, photo_ids, response_digests

TIE = 1e-6
"""Cosines that differ by less count as equal, because rounding of float32 embeddings differs between batches."""

BLOCK = 1024
"""Queries at a time, which bounds the memory of the similarities."""
NAMES = ('top1', 'top5', 'median_rank')
PARTNERS = {'brain': 'fmri_embedding', 'text': 'text_embedding'}
"""What an image is matched with → field of a prediction that holds its embedding."""


class Ranks(NamedTuple):
    """Hold the outcome of n queries.

    Attributes:
        rank: (n,) int, rank of each query's partner, from 1.
        candidates: (n,) int, number of entries it was ranked among, itself included.
        image_id: (n,) int, image of each query, or its photograph if several images were cut from one.
    """

    rank: np.ndarray
    candidates: np.ndarray
    image_id: np.ndarray


def retrieval_ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_id: Optional[Sequence[int]] = None,
    gallery_id: Optional[Sequence[int]] = None,
    partner: Optional[Sequence[int]] = None,
) -> Ranks:
    """Rank each query's partner among the gallery by cosine similarity.

    An entry that ties with the partner, or whose similarity is NaN, ranks before it, so constant embeddings find
    nothing. Other entries of the query's image are not candidates, because they would be right answers too.

    Args:
        queries: (n, D).
        gallery: (m, D).
        query_id: (n,) image of each query; None if all differ.
        gallery_id: (m,) image of each entry; None if all differ.
        partner: (n,) entry that belongs to each query; None if entry i belongs to query i.

    Raises:
        ValueError: If a query and its partner are not of the same image.
    """
    query_id = np.arange(len(queries)) if query_id is None else np.asarray(query_id)
    gallery_id = np.arange(len(gallery)) if gallery_id is None else np.asarray(gallery_id)
    partner = np.arange(len(queries)) if partner is None else np.asarray(partner)
    if not np.array_equal(query_id, gallery_id[partner]):
        raise ValueError('partner: a query and the entry that belongs to it must have the same image.')
    with np.errstate(invalid='ignore', divide='ignore'):
        queries, gallery = (
            x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
            for x in (queries, gallery)
        )
    rank, candidates = [], []
    for start in range(0, len(queries), BLOCK):
        part = slice(start, start + BLOCK)
        similarity = queries[part] @ gallery.T
        own = np.take_along_axis(similarity, partner[part, None], axis=1)
        other = query_id[part, None] != gallery_id
        rank.append(1 + (other & ~(similarity < own - TIE)).sum(1))
        candidates.append(1 + other.sum(1))
    return Ranks(np.concatenate(rank), np.concatenate(candidates), query_id)


def both_directions(
    image: np.ndarray, partner: np.ndarray, image_id: np.ndarray, photo_id: np.ndarray
) -> Tuple[Ranks, Ranks]:
    """Rank from image to partner and from partner to image, for the n samples of one subject.

    Args:
        image: (n, D) embeddings of the images.
        partner: (n, D) embeddings of their responses or captions, all of which are queries.
        image_id: (n,); the gallery of images has each once.
        photo_id: (n,) photograph that each image was cut from.
    """
    _, first, own = np.unique(image_id, return_index=True, return_inverse=True)
    return (
        retrieval_ranks(image, partner, photo_id, photo_id),
        retrieval_ranks(partner, image[first], photo_id, photo_id[first], own.reshape(-1)),
    )


def retrieval_metrics(ranks: Ranks, weights: Optional[np.ndarray] = None) -> Dict[str, np.ndarray]:
    """Compute ``top1`` and ``top5``, the shares of queries whose partner is among the first k, and ``median_rank``.

    Args:
        ranks: Ranks of n queries.
        weights: (B, n) int, how often each query counts in each of B resamplings; None for one sample of all queries.

    Returns:
        Name → (B,) float64; NaN if all weights are 0.
    """
    order = np.argsort(ranks.rank, kind='stable')
    rank = ranks.rank[order]
    weights = np.ones((1, len(rank)), np.int64) if weights is None else weights[:, order]
    upto = weights.cumsum(1)
    total = upto[:, -1]
    with np.errstate(invalid='ignore'):
        metrics = {f'top{k}': weights[:, rank <= k].sum(1) / total for k in (1, 5)}
    middle = [(upto > place[:, None]).argmax(1) for place in ((total - 1) // 2, total // 2)]
    metrics['median_rank'] = np.where(total > 0, (rank[middle[0]] + rank[middle[1]]) / 2, np.nan)
    return metrics


def ranks_of_predictions(predictions: Sequence[dict]) -> Ranks:
    """Rank each image's partner among those of the same subject.

    Args:
        predictions: Predictions written by ``tools/test.py --dump``, with ``subject``, ``image_id``,
            ``image_embedding`` and the embedding of the partner.
    """
    field = next(field for field in PARTNERS.values() if field in predictions[0])
    parts = []
    for subject in sorted({p['subject'] for p in predictions}):
        own = [p for p in predictions if p['subject'] == subject]
        image, partner = (np.stack([np.asarray(p[key]) for p in own]) for key in ('image_embedding', field))
        photo_id = [int(p.get('photo_id', p['image_id'])) for p in own]
        parts.append(retrieval_ranks(image, partner, photo_id, photo_id))
    return Ranks(*(np.concatenate(values) for values in zip(*parts)))


def recall_curve(ranks: Ranks) -> np.ndarray:
    """Compute the share of queries whose partner is among the first k, for k = 1 … the largest number of candidates."""
    counts = np.bincount(ranks.rank, minlength=ranks.candidates.max() + 1)[1:]
    return counts.cumsum() / len(ranks.rank)


def chance_metrics(ranks: Ranks) -> Dict[str, float]:
    """Compute the metrics of guessing.

    The shares are min(k, M) / M, averaged over queries with M candidates each. The median rank is that of all queries'
    guessed ranks, (M + 1) / 2 if M is the same for all.
    """
    m, count = np.unique(ranks.candidates, return_counts=True)
    metrics = {f'top{k}': float(np.average(np.minimum(k, m) / m, weights=count)) for k in (1, 5)}
    rank = np.arange(1, m[-1] + 1)
    share = np.average(np.minimum(rank[:, None], m) / m, axis=1, weights=count)  # of guesses up to each rank
    middle = rank[(share > 0.5 - 1e-9).argmax()], rank[(share > 0.5 + 1e-9).argmax()]
    return dict(metrics, median_rank=float(np.mean(middle)))


@METRICS.register_module()
class RetrievalMetric(GatheredMetric):
    """Score image↔brain retrieval among the test images of each subject.

    ``image_to_brain`` searches the subject's responses for the response to an image, and ``brain_to_image`` the
    subject's images for the image of a response. Each direction has ``top1`` and ``top5`` (fractions) and
    ``median_rank`` (from 1). ``image_to_brain_top1`` is the mean over subjects, ``subj01_image_to_brain_top1`` the
    metric of one subject. A suffix gives

    - ``_chance``: the metric of guessing;
    - ``_low``, ``_high``: the 95% confidence interval by percentile bootstrap over images. Images are drawn with
      replacement, the same ones for all subjects, while the gallery stays whole. The interval tells how much the metric
      depends on the choice of images, and nothing about other subjects or training runs. It is a single point if no
      image succeeds or all do.

    ``chance`` is ``image_to_brain_top1_chance``. If an image has several responses (``average=False``), each response
    is a query, and the gallery has each image once; see :func:`retrieval_ranks` for ties and for other responses to the
    same image. Other crops of the same photograph are treated alike: they are not candidates, and are drawn together.

    Args:
        partner: ``'brain'``, or ``'text'`` for images and captions (``image_to_text``, ``text_to_image``).
        per_subject: Also give the metrics of each subject.
        bootstraps: Number of resamplings; 0 gives no intervals.
        seed: Seed of the bootstrap.
        **kwargs: See :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'retrieval'

    def __init__(
        self, partner: str = 'brain', per_subject: bool = True, bootstraps: int = 1000, seed: int = 0, **kwargs
    ):
        super().__init__(**kwargs)
        if partner not in PARTNERS:
            raise ValueError(f'partner must be one of {tuple(PARTNERS)}, but got {partner!r}')
        self.partner = partner
        self.per_subject = per_subject
        self.bootstraps = bootstraps
        self.seed = seed

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the embeddings of a batch of predictions."""
        photos = photo_ids(data_batch, data_samples)
        for sample, photo, response in zip(data_samples, photos, response_digests(data_batch)):
            self.results.append(
                dict(
                    subject=sample['subject'],
                    image_id=int(sample['image_id']),
                    photo_id=photo,
                    response=response,
                    image=sample['image_embedding'].float().cpu().numpy(),
                    partner=sample[PARTNERS[self.partner]].float().cpu().numpy(),
                )
            )

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Compute the metrics of each direction: means over subjects, then those of each subject."""
        subjects = sorted({r['subject'] for r in results})
        names, ranks = ('image', 'partner', 'image_id', 'photo_id'), {}
        for subject in subjects:
            rows = [r for r in results if r['subject'] == subject]
            ranks[subject] = both_directions(*(np.stack([r[name] for r in rows]) for name in names))
        photos = np.unique([r['photo_id'] for r in results])
        draws = np.random.default_rng(self.seed).multinomial(
            len(photos), np.full(len(photos), 1 / len(photos)), self.bootstraps
        )
        means: Dict[str, float] = {}
        own: Dict[str, Dict[str, float]] = {subject: {} for subject in subjects}
        for k, direction in enumerate((f'image_to_{self.partner}', f'{self.partner}_to_image')):
            parts = []  # of each subject: its metrics, those of each resampling, and chance
            for subject in subjects:
                one = ranks[subject][k]
                weights = draws[:, np.searchsorted(photos, one.image_id)]
                parts.append((retrieval_metrics(one), retrieval_metrics(one, weights), chance_metrics(one)))
            for name in NAMES:
                values, resampled, chance = (np.stack([part[i][name] for part in parts]) for i in range(3))
                key = f'{direction}_{name}'
                means.update(self._entries(key, values.mean(), resampled.mean(0), chance.mean()))
                for i, subject in enumerate(subjects if self.per_subject else ()):
                    own[subject].update(self._entries(f'{subject}_{key}', values[i, 0], resampled[i], chance[i]))
        means['chance'] = means[f'image_to_{self.partner}_top1_chance']
        return {name: value for entries in (means, *own.values()) for name, value in entries.items()}

    def _entries(self, key: str, value: float, resampled: np.ndarray, chance: float) -> Dict[str, float]:
        entries = {key: float(value)}
        if self.bootstraps:
            low, high = np.nanpercentile(resampled, (2.5, 97.5))
            entries.update({f'{key}_low': float(low), f'{key}_high': float(high)})
        return {**entries, f'{key}_chance': float(chance)}
