"""Voxel-wise encoding: how well frozen image features predict the responses of each voxel."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmengine.dist import all_gather_object
from mmengine.logging import print_log

from mmnfn.nsd.release import subject_names
from mmnfn.nsd.store import ROIStore
from mmnfn.registry import METRICS

from .encoding_maps import write_voxel_map
from .encoding_model import EncodingResult, draw_images, fit_encoding_model
from .gathered_metric import GatheredMetric, photo_ids, response_digests


class SubjectVoxels(NamedTuple):
    """The V voxels of a subject, each once, however many ROIs hold it.

    Attributes:
        place: (V,) where the voxel axis (N,) of a batch, which has the ROIs one after another, has them first.
        rois: Name of each ROI class that the subject has → indices into the V voxels.
        index: (V,) in the subject's ROI store, ascending.
        noise_ceiling: (V,) percent of variance of a test response.
        ncsnr: (V,).
        bands: Sizes of the groups of features.
    """

    place: np.ndarray
    rois: Dict[str, np.ndarray]
    index: np.ndarray
    noise_ceiling: np.ndarray
    ncsnr: np.ndarray
    bands: Tuple[int, ...]

    @classmethod
    def of(cls, batch: dict, bands: Sequence[int]) -> SubjectVoxels:
        """The voxels of a batch; a voxel is known by its index, for a control may say that it is elsewhere."""
        geometry = batch['geometry']
        index, place, number = np.unique(geometry.voxels.cpu().numpy(), return_index=True, return_inverse=True)
        parts = np.split(number, np.cumsum(geometry.roi_sizes)[:-1])
        return cls(
            place,
            {name: part for name, part in zip(geometry.roi_names, parts) if part.size},
            index,
            batch['noise_ceiling'].cpu().numpy()[place],
            batch['ncsnr'].cpu().numpy()[place],
            tuple(bands),
        )

    def groups(self) -> Dict[str, np.ndarray]:
        """``''`` for all voxels and ``'_roi_<ROI>'`` for each ROI → indices into the V voxels."""
        return {'': np.arange(len(self.place)), **{f'_roi_{name}': part for name, part in self.rois.items()}}


@METRICS.register_module()
class EncodingMetric(GatheredMetric):
    """PCC of a voxel-wise encoding model on frozen backbone features.

    The dataset must give the training and the test images of each subject (``split='all'``); the model,
    :class:`mmnfn.models.BackboneFeatures`, gives ``features``. Per subject a ridge is fitted on the training images and
    scored on the test images (:func:`fit_encoding_model`).

    Figures, over all voxels, with ``_roi_<ROI>`` behind them over those of a ROI, and with ``subj0N_`` in front for one
    subject instead of the mean over the subjects that have such voxels:

    - ``pcc``: raw Pearson r, mean over voxels;
    - ``pcc_normalized``: r divided by the square root of the noise ceiling, mean over the voxels whose ceiling is at
      least ``min_ceiling`` percent;
    - ``pcc_reliable``: raw r, mean over the voxels with ncsnr of at least ``min_ncsnr``.

    - ``ceiling``: square root of the noise ceiling, mean over voxels: the ``pcc`` of a model that knows all.

    Behind each but the last, ``_low`` and ``_high``: 95% interval by percentile bootstrap over test images, the same
    ones for all subjects, and with all of an image's trials where the data set gives single ones, and all crops of a
    photograph. It says how much the figure depends on which images were shown, and nothing of other subjects or
    training runs. ``pcc_se`` is the standard error of ``pcc`` from the same bootstrap. Counts of voxels, summed over
    subjects: ``voxels``, ``voxels_constant`` (no variance in responses or predictions: r is NaN and counts nowhere),
    ``voxels_normalized`` and ``voxels_reliable`` (those that the two figures are of). A voxel in two ROIs counts in
    both, and once among all.

    Where the metadata of the tested checkpoint tell of its training (:class:`~mmnfn.engine.LoadAuditHook` hands them
    over), ``subj0N_trained_on`` is 1 for each subject of the training data, whose figures are then not of a held-out
    person, and 0 for others; ``test_images_trained_on`` is 1 if the training data held the test images. Either is said
    in the log, too.

    Args:
        min_ceiling: In percent of variance.
        min_ncsnr: Ratio of the deviations of signal and noise in a single trial.
        banded: One regularisation for each of the backbone's stages instead of one for all features.
        per_subject: Also give the figures of each subject.
        bootstraps: Number of resamplings of the test images, at least 2.
        backend: ``'numpy'``, or ``'torch_cuda'`` to fit on the GPU, see :func:`.encoding_model.fit_encoding_model`.
        map_dir: Folder for ``subj0N_pcc.nii.gz``, r of each voxel in the subject's functional space; None for none.
        data_root: Folder of the ROI stores, which maps need.
        **kwargs: See :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If maps are asked for and ``data_root`` is not given, or for fewer than 2 resamplings.
    """

    default_prefix = 'encoding'

    def __init__(
        self,
        min_ceiling: float = 5.0,
        min_ncsnr: float = 0.2,
        banded: bool = False,
        per_subject: bool = True,
        bootstraps: int = 1000,
        backend: str = 'numpy',
        map_dir: Optional[str] = None,
        data_root: Optional[str] = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if map_dir is not None and data_root is None:
            raise ValueError('map_dir is given without data_root, the folder of the ROI stores, which maps need.')
        if bootstraps < 2:
            raise ValueError(f'bootstraps is {bootstraps}; an interval needs at least 2, and a good one 1000.')
        self.min_ceiling, self.min_ncsnr = min_ceiling, min_ncsnr
        self.banded, self.per_subject, self.bootstraps = banded, per_subject, bootstraps
        self.backend = backend
        self.map_dir, self.data_root = map_dir, data_root
        self._voxels: Dict[str, SubjectVoxels] = {}
        self._training: Dict[str, Any] = {}

    def note_training(self, meta: Dict[str, Any]) -> None:
        """Note what the metadata of the checkpoint say of its training data: ``subjects`` and ``split``."""
        self._training = {**meta, **meta.get('mmnfn', {})}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep features and responses of a batch."""
        geometry = data_batch['geometry']
        if geometry.subject not in self._voxels and len(data_samples):
            self._voxels[geometry.subject] = SubjectVoxels.of(data_batch, data_samples[0].get('bands', ()))
        photos, digests = photo_ids(data_batch, data_samples), response_digests(data_batch)
        batch = zip(data_samples, data_batch['responses'], data_batch['split'], photos, digests)
        for sample, responses, split, photo, digest in batch:
            self.results.append(
                dict(
                    subject=geometry.subject,
                    image_id=int(sample['image_id']),
                    photo_id=photo,
                    response=digest,
                    split=split,
                    features=sample['features'].float().cpu().numpy(),
                    responses=responses.cpu().numpy()[self._voxels[geometry.subject].place],
                )
            )

    def evaluate(self, size: int) -> Dict[str, float]:
        """Metrics of the whole dataset, the same on every rank."""
        for part in all_gather_object(self._voxels):
            self._voxels = {**part, **self._voxels}
        return super().evaluate(size)

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Fit and score each subject."""
        own, counts, resampled, ceilings = {}, {}, {}, {}
        photos = np.unique([r['photo_id'] for r in results if r['split'] == 'test'])
        draws = draw_images(max(len(photos), 1), self.bootstraps, seed=0)
        subjects = sorted({r['subject'] for r in results})
        for subject in subjects:
            voxels = self._voxels[subject]
            own_results = [r for r in results if r['subject'] == subject]
            shown = np.searchsorted(photos, [r['photo_id'] for r in own_results if r['split'] == 'test'])
            outcome = self._fit(own_results, voxels, draws[:, shown])
            if self.map_dir is not None:
                store = ROIStore(Path(self.data_root) / f'{subject}.h5')
                path = Path(self.map_dir) / f'{subject}_pcc.nii.gz'
                write_voxel_map(store, voxels.index, outcome.r, path)
            for name, values in self._figures(outcome, voxels).items():
                own.setdefault(name, {})[subject] = values
            for group, members in voxels.groups().items():
                known = members[~np.isnan(outcome.r[members])]
                root = np.sqrt(np.maximum(voxels.noise_ceiling[known], 0) / 100)
                ceilings.setdefault(f'ceiling{group}', {})[subject] = _mean(root)
            for name, count in self._counts(outcome, voxels).items():
                counts[name] = counts.get(name, 0) + count
        figures: Dict[str, float] = {}
        for name, by_subject in own.items():
            values, drawn = zip(*by_subject.values())
            resampled[name] = np.asarray([_mean(drawing) for drawing in np.transpose(drawn)])
            figures.update(_interval(name, _mean(np.asarray(values)), resampled[name]))
        figures['pcc_se'] = float(np.std(resampled['pcc'], ddof=1))
        figures.update({name: _mean(np.asarray(list(by_subject.values()))) for name, by_subject in ceilings.items()})
        if self.per_subject:
            for name, by_subject in ceilings.items():
                figures.update({f'{subject}_{name}': value for subject, value in by_subject.items()})
            for name, by_subject in own.items():
                for subject, (value, values) in by_subject.items():
                    figures.update(_interval(f'{subject}_{name}', value, values))
        return {**figures, **counts, **self._trained_on(subjects)}

    def _trained_on(self, subjects: List[str]) -> Dict[str, int]:
        """Which of the subjects, and whether the test images, were trained on; {} if nobody says."""
        if 'subjects' not in self._training:
            return {}
        trained = subject_names(self._training['subjects'])
        known = [subject for subject in subjects if subject in trained]
        split = self._training.get('split') or 'train'
        said = [f'data of {", ".join(known)}'] if known else []
        said += [f'the test images (split {split!r})'] if split != 'train' else []
        if said:
            text = f'The backbone was trained on {" and on ".join(said)}, say its metadata: they are not held out.'
            print_log(text, 'current', logging.WARNING)
        flags = {f'{subject}_trained_on': int(subject in known) for subject in subjects}
        return dict(flags, test_images_trained_on=int(split != 'train'))

    def _fit(self, results: List[dict], voxels: SubjectVoxels, draws: np.ndarray) -> EncodingResult:
        """Encoding model of one subject; takes the arrays out of the results, which are large."""
        arrays = []
        for split in ('train', 'test'):
            members = [r for r in results if r['split'] == split]
            for key in ('features', 'responses'):
                arrays.append(np.stack([r.pop(key) for r in members]) if members else np.zeros((0, 1)))
        bands = voxels.bands if self.banded else None
        return fit_encoding_model(*arrays, bands=bands, draws=draws, backend=self.backend)

    def _selections(self, voxels: SubjectVoxels) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
        """Figure → which of the V voxels it is of, and what r is divided by."""
        with np.errstate(invalid='ignore'):
            good = voxels.noise_ceiling >= self.min_ceiling
            reliable = voxels.ncsnr >= self.min_ncsnr
            ceiling = np.sqrt(np.where(good, voxels.noise_ceiling, 100) / 100)
        ones = np.ones(len(good))
        return dict(pcc=(ones > 0, ones), pcc_normalized=(good, ceiling), pcc_reliable=(reliable, ones))

    def _figures(self, outcome: EncodingResult, voxels: SubjectVoxels) -> Dict[str, Tuple[float, np.ndarray]]:
        """Figure → its value, and its value in each resampling; NaN where no voxel is left."""
        figures = {}
        for group, members in voxels.groups().items():
            for name, (selected, divisor) in self._selections(voxels).items():
                chosen = members[selected[members] & ~np.isnan(outcome.r[members])]
                figures[name + group] = (
                    _mean(outcome.r[chosen] / divisor[chosen]),
                    np.asarray([_mean(row) for row in outcome.resampled[:, chosen] / divisor[chosen]]),
                )
        return figures

    def _counts(self, outcome: EncodingResult, voxels: SubjectVoxels) -> Dict[str, int]:
        known = ~np.isnan(outcome.r)
        selected = {
            name.partition('_')[2]: int((chosen & known).sum())
            for name, (chosen, _) in self._selections(voxels).items()
        }
        return dict(
            voxels=len(known),
            voxels_constant=int((~known).sum()),
            voxels_normalized=selected['normalized'],
            voxels_reliable=selected['reliable'],
        )


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN of nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def _interval(name: str, value: Any, resampled: np.ndarray) -> Dict[str, float]:
    known = resampled[~np.isnan(resampled)]
    low, high = np.percentile(known, (2.5, 97.5)) if known.size else (np.nan, np.nan)
    return {name: float(value), f'{name}_low': float(low), f'{name}_high': float(high)}
