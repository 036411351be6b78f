"""Retrieval between images and brain responses."""

from __future__ import annotations

from typing import Dict, List, Sequence

import numpy as np

from mmnfn.registry import METRICS

from .gathered_metric import GatheredMetric


def retrieval_figures(queries: np.ndarray, gallery: np.ndarray) -> Dict[str, float]:
    """How well each query finds its own partner by cosine similarity.

    Args:
        queries: (n, D); query i belongs to gallery entry i.
        gallery: (n, D).

    Returns:
        ``top1`` and ``top5``, the shares of queries whose partner is the most, or among the five most, similar; an
        entry that ties with the partner ranks before it. ``median_rank``, counted from 1.
    """
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    gallery = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    similarity = queries @ gallery.T
    own = np.diag(similarity)[:, None]
    rank = (similarity >= own).sum(1)
    return dict(top1=float((rank == 1).mean()), top5=float((rank <= 5).mean()), median_rank=float(np.median(rank)))


@METRICS.register_module()
class RetrievalMetric(GatheredMetric):
    """Image↔brain retrieval within the test images of each subject, averaged over subjects.

    Figures are fractions: ``top1``, ``top5`` and ``median_rank`` of finding the response by the image
    (``image_to_brain``) and the image by the response (``brain_to_image``); ``chance`` is the top-1 of guessing, one
    over the number of images.
    """

    default_prefix = 'retrieval'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the embeddings of a batch of ``NeuroFusionNet`` predictions."""
        for sample in data_samples:
            self.results.append(
                dict(
                    subject=sample['subject'],
                    image_id=int(sample['image_id']),
                    image=sample['image_embedding'].float().cpu().numpy(),
                    fmri=sample['fmri_embedding'].float().cpu().numpy(),
                )
            )

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Mean over subjects, and top-1 of each subject."""
        figures: Dict[str, List[float]] = {}
        per_subject = {}
        for subject in sorted({r['subject'] for r in results}):
            own = [r for r in results if r['subject'] == subject]
            image, fmri = (np.stack([r[name] for r in own]) for name in ('image', 'fmri'))
            for direction, pair in (('image_to_brain', (image, fmri)), ('brain_to_image', (fmri, image))):
                for name, value in retrieval_figures(*pair).items():
                    figures.setdefault(f'{direction}_{name}', []).append(value)
                    if direction == 'image_to_brain' and name == 'top1':
                        per_subject[f'{subject}_top1'] = value
            figures.setdefault('chance', []).append(1 / len(own))
        return {**{name: float(np.mean(values)) for name, values in figures.items()}, **per_subject}
