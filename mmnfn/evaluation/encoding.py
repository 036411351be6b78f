"""Voxel-wise encoding: how well frozen image features predict the responses of each voxel."""

from __future__ import annotations

import gzip
import logging
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import nibabel as nib
import numpy as np
from mmengine.dist import all_gather_object
from mmengine.logging import print_log

from mmnfn.nsd.release import subject_names
from mmnfn.nsd.store import ROIStore
from mmnfn.registry import METRICS
from mmnfn.utils import atomic_write

from .dump import write_predictions
from .gathered_metric import GatheredMetric, photo_ids, response_digests
from .ridge import EncodingResult, bootstrap_r, draw_images, fit_encoding_model, pearson_r


class SubjectVoxels(NamedTuple):
    """Hold the V voxels of a subject, each once even if several ROIs contain it.

    Attributes:
        place: (V,) first place of each voxel on the voxel axis (N,) of a batch, which has the ROIs one after another.
        rois: ROI class → indices into the V voxels, without classes that the subject lacks.
        index: (V,) index in the subject's ROI store, ascending.
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
        """Take the voxels of a batch, identified by their index because a control may have moved them."""
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
        """Map ``''`` to all voxels, and ``'_roi_<ROI>'`` to those of each ROI, as indices into the V voxels."""
        return {'': np.arange(len(self.place)), **{f'_roi_{name}': part for name, part in self.rois.items()}}


@METRICS.register_module()
class EncodingMetric(GatheredMetric):
    """Score a voxel-wise encoding model on frozen backbone features by Pearson's r (PCC).

    The dataset must give the training and the test images of each subject (``split='all'``); the model,
    :class:`mmnfn.models.BackboneFeatures`, gives ``features``. For each subject a ridge is fitted to the training
    images and scored on the test images (:func:`fit_encoding_model`).

    The metrics are means over voxels. A plain name is the mean over subjects of all voxels; ``_roi_<ROI>`` behind it
    restricts it to a ROI, and ``subj0N_`` in front of it to one subject. Subjects without such voxels are left out.

    - ``pcc``: raw Pearson r.
    - ``pcc_normalized``: r divided by the square root of the noise ceiling, over voxels whose ceiling is at least
      ``min_ceiling`` percent.
    - ``pcc_reliable``: raw r, over voxels with an ncsnr of at least ``min_ncsnr``.
    - ``ceiling``: square root of the noise ceiling, the ``pcc`` of a perfect model.

    If the model also gives ``low_level`` features, two more encoding models are fitted to the same images, of these
    features alone and of both, which are then regularised separately (banded ridge):

    - ``pcc_unique``: r of both minus r of the low-level features alone, the part that only the backbone explains.
    - ``pcc_over_low_level``: r of the backbone minus r of the low-level features alone.

    All but the ceiling come with ``_low`` and ``_high``, a 95% interval by percentile bootstrap over test images. The
    same images are drawn for all subjects and encoding models, with all their trials if the dataset gives single
    trials, and with all crops of their photograph. The interval tells how much the metric depends on the choice of
    images, and nothing about other subjects or training runs. ``pcc_se`` is the standard error of ``pcc`` from the same
    bootstrap.

    Counts of voxels, summed over subjects: ``voxels``, ``voxels_constant`` (no variance in responses or predictions; r
    is NaN and enters no mean), ``voxels_normalized`` and ``voxels_reliable`` (in the two metrics of that name). A voxel
    in two ROIs counts in both, and once among all.

    If the metadata of the tested checkpoint describes its training (:class:`~mmnfn.engine.LoadAuditHook` passes it
    on), ``subj0N_trained_on`` is 1 for subjects of the training data, who are then not held out, and 0 for others;
    ``test_images_trained_on`` is 1 if the training data included the test images. The log warns of both.

    Args:
        min_ceiling: In percent of variance.
        min_ncsnr: Ratio of the stds of signal and noise in a single trial.
        banded: Regularise each of the backbone's stages on its own instead of all features alike.
        per_subject: Also give the metrics of each subject.
        bootstraps: Number of resamplings of the test images, at least 2.
        backend: ``'numpy'``, or ``'torch_cuda'`` to fit on the GPU, see :func:`fit_encoding_model`.
        prediction_file: Pickle file for the predictions of the test images, which ``tools/test.py --dump`` sets; None
            for none. It holds a list with a dict for each of them: ``subject``, ``image_id``, ``photo_id``,
            ``predicted_responses`` and ``responses`` (V,), and ``voxels``, a dict with ``index`` (V,) in the subject's
            ROI store and ``rois``, ROI → indices into the V voxels. Read it with
            :func:`~mmnfn.evaluation.dump.read_predictions`.
        map_dir: Folder for ``subj0N_pcc.nii.gz``, r of each voxel in the subject's functional space; None for none.
        data_root: Folder of the ROI stores, needed for maps.
        **kwargs: See :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If ``map_dir`` is given without ``data_root``, or ``bootstraps`` is below 2.
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
        prediction_file: Optional[str] = None,
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
        self.backend, self.prediction_file, self.map_dir, self.data_root = backend, prediction_file, map_dir, data_root
        self._voxels: Dict[str, SubjectVoxels] = {}
        self._training: Dict[str, Any] = {}

    def note_training(self, meta: Dict[str, Any]) -> None:
        """Note the training data, ``subjects`` and ``split``, from the metadata of the checkpoint."""
        self._training = {**meta, **meta.get('mmnfn', {})}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep features and responses of a batch."""
        subject = data_batch['geometry'].subject
        if subject not in self._voxels and len(data_samples):
            self._voxels[subject] = SubjectVoxels.of(data_batch, data_samples[0].get('bands', ()))
        photos, digests = photo_ids(data_batch, data_samples), response_digests(data_batch)
        batch = zip(data_samples, data_batch['responses'], data_batch['split'], photos, digests)
        for sample, responses, split, photo, digest in batch:
            self.results.append(
                dict(
                    subject=subject,
                    image_id=int(sample['image_id']),
                    photo_id=photo,
                    response=digest,
                    split=split,
                    features=self._features(sample, self._voxels[subject]),
                    responses=responses.cpu().numpy()[self._voxels[subject].place],
                    **({'low_level': sample['low_level'].cpu().numpy()} if 'low_level' in sample else {}),
                )
            )

    def _features(self, sample: dict, voxels: SubjectVoxels) -> np.ndarray:
        return sample['features'].float().cpu().numpy()

    def evaluate(self, size: int) -> Dict[str, float]:
        """Compute the metrics of the whole dataset, the same on every rank."""
        for part in all_gather_object(self._voxels):
            self._voxels = {**part, **self._voxels}
        return super().evaluate(size)

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Fit and score each subject."""
        photos = np.unique([r['photo_id'] for r in results if r['split'] == 'test'])
        draws = draw_images(max(len(photos), 1), self.bootstraps, seed=0)
        scores: Dict[str, Dict[str, Score]] = {}  # metric → subject → score
        counts: Counter = Counter()
        subjects = sorted({r['subject'] for r in results})
        predictions: List[dict] = []
        for subject in subjects:
            voxels = self._voxels[subject]
            own = [r for r in results if r['subject'] == subject]
            tested = [r for r in own if r['split'] == 'test']
            measured = [r['responses'] for r in tested]
            shown = np.searchsorted(photos, [r['photo_id'] for r in tested])
            outcome, differences = self._fit(own, voxels, draws[:, shown])
            about = dict(index=voxels.index, rois=voxels.rois)  # one object, which a pickle file has once
            for r, response, prediction in zip(tested, measured, outcome.prediction):
                sample = {key: r[key] for key in ('subject', 'image_id', 'photo_id')}
                predictions.append(dict(sample, predicted_responses=prediction, responses=response, voxels=about))
            if self.map_dir is not None:
                store = ROIStore(Path(self.data_root) / f'{subject}.h5')
                write_voxel_map(store, voxels.index, outcome.r, Path(self.map_dir) / f'{subject}_pcc.nii.gz')
            of_subject, of_voxels = self._score(outcome, differences, voxels)
            counts.update(of_voxels)
            for name, score in of_subject.items():
                scores.setdefault(name, {})[subject] = score
        if self.prediction_file is not None:
            write_predictions(self.prediction_file, predictions)
        metrics: Dict[str, float] = {}
        for name, by_subject in scores.items():
            values, resampled = zip(*by_subject.values())
            drawn = None if resampled[0] is None else np.asarray([_mean(one) for one in np.transpose(resampled)])
            metrics.update(_entries(name, _mean(np.asarray(values)), drawn))
            if name == 'pcc':
                metrics['pcc_se'] = float(np.std(drawn, ddof=1))
        for name, by_subject in scores.items() if self.per_subject else ():
            for subject, score in by_subject.items():
                metrics.update(_entries(f'{subject}_{name}', *score))
        return {**metrics, **counts, **self._trained_on(subjects)}

    def _fit(
        self, results: List[dict], voxels: SubjectVoxels, draws: np.ndarray
    ) -> Tuple[EncodingResult, Dict[str, EncodingResult]]:
        """Fit the encoding models of one subject; moves the arrays, which are large, out of the results.

        Returns:
            The outcome for the backbone's features; and metric → differences of r to low-level features alone.
        """
        splits = [[r for r in results if r['split'] == split] for split in ('train', 'test')]

        def take(key: str) -> List[np.ndarray]:
            return [np.stack([r.pop(key) for r in members]) if members else np.zeros((0, 1)) for members in splits]

        def fit(features: List[np.ndarray], bands: Tuple[int, ...]) -> EncodingResult:
            (x, x_test), (y, y_test) = features, responses
            return fit_encoding_model(x, y, x_test, y_test, bands=bands, draws=draws, backend=self.backend)

        features, responses = take('features'), take('responses')
        bands = voxels.bands if self.banded else (features[0].shape[1],)
        outcome = fit(features, bands)
        if 'low_level' not in results[0]:
            return outcome, {}
        low_level = take('low_level')
        low_level_band = (low_level[0].shape[1],)
        alone = fit(low_level, low_level_band)
        both = fit([np.concatenate(pair, axis=1) for pair in zip(features, low_level)], bands + low_level_band)
        return outcome, {
            name: one._replace(r=one.r - alone.r, resampled=one.resampled - alone.resampled)
            for name, one in (('pcc_unique', both), ('pcc_over_low_level', outcome))
        }

    def _score(
        self, outcome: EncodingResult, differences: Dict[str, EncodingResult], voxels: SubjectVoxels
    ) -> Tuple[Dict[str, Score], Dict[str, int]]:
        """Compute the metrics of a subject, NaN if no voxel is left, and count its voxels."""
        known, ones = ~np.isnan(outcome.r), np.ones(len(outcome.r))
        root = np.sqrt(np.maximum(voxels.noise_ceiling, 0) / 100)
        with np.errstate(invalid='ignore'):
            good, reliable = voxels.noise_ceiling >= self.min_ceiling, voxels.ncsnr >= self.min_ncsnr
        selections = dict(
            pcc=(outcome, known, ones),
            pcc_normalized=(outcome, known & good, np.where(good, root, 1)),
            pcc_reliable=(outcome, known & reliable, ones),
            **{name: (one, ~np.isnan(one.r), ones) for name, one in differences.items()},
        )
        scores: Dict[str, Score] = {}
        for group, members in voxels.groups().items():
            for name, (one, selected, divisor) in selections.items():
                chosen = members[selected[members]]
                resampled = np.asarray([_mean(row) for row in one.resampled[:, chosen] / divisor[chosen]])
                scores[name + group] = _mean(one.r[chosen] / divisor[chosen]), resampled
            scores[f'ceiling{group}'] = _mean(root[members[known[members]]]), None
        normalized, reliable = (int(selections[f'pcc_{name}'][1].sum()) for name in ('normalized', 'reliable'))
        return scores, dict(
            voxels=len(known),
            voxels_constant=int((~known).sum()),
            voxels_normalized=normalized,
            voxels_reliable=reliable,
        )

    def _trained_on(self, subjects: List[str]) -> Dict[str, int]:
        """Flag subjects and test images of the training data; {} if the training data is unknown."""
        if 'subjects' not in self._training:
            return {}
        trained = subject_names(self._training['subjects'])
        known = [subject for subject in subjects if subject in trained]
        split = self._training.get('split') or 'train'
        found = [f'data of {", ".join(known)}'] if known else []
        found += [f'the test images (split {split!r})'] if split != 'train' else []
        if found:
            text = f'The backbone was trained on {" and on ".join(found)}, say its metadata: they are not held out.'
            print_log(text, 'current', logging.WARNING)
        flags = {f'{subject}_trained_on': int(subject in known) for subject in subjects}
        return dict(flags, test_images_trained_on=int(split != 'train'))


@METRICS.register_module()
class ResponseMetric(EncodingMetric):
    """Score the responses that an :class:`mmnfn.models.EncodingHead` itself predicts, without a ridge.

    The dataset gives the test images of subjects that the head has maps for. Metrics and arguments are those of
    :class:`EncodingMetric`; nothing is fitted, so the arguments of the fit change nothing.
    """

    default_prefix = 'response'

    def _features(self, sample: dict, voxels: SubjectVoxels) -> np.ndarray:
        return sample['predicted_responses'].float().cpu().numpy()[voxels.place]

    def _fit(
        self, results: List[dict], voxels: SubjectVoxels, draws: np.ndarray
    ) -> Tuple[EncodingResult, Dict[str, EncodingResult]]:
        predicted, measured = (np.stack([r.pop(key) for r in results]) for key in ('features', 'responses'))
        return EncodingResult(predicted, pearson_r(predicted, measured), bootstrap_r(predicted, measured, draws)), {}

    def _trained_on(self, subjects: List[str]) -> Dict[str, int]:
        return {}  # the head knows its own subjects only


Score = Tuple[float, Optional[np.ndarray]]
"""A metric, and its value in each resampling; None for a metric without interval."""


def _mean(values: np.ndarray) -> float:
    """Average all values but NaN; NaN if none is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def _entries(name: str, value: float, resampled: Optional[np.ndarray]) -> Dict[str, float]:
    """Name a metric and the bounds of its interval."""
    if resampled is None:
        return {name: value}
    known = resampled[~np.isnan(resampled)]
    low, high = np.percentile(known, (2.5, 97.5)) if known.size else (np.nan, np.nan)
    return {name: float(value), f'{name}_low': float(low), f'{name}_high': float(high)}


def write_voxel_map(store: ROIStore, index: np.ndarray, values: np.ndarray, path: Union[str, Path]) -> Path:
    """Write one value per voxel as a NIfTI volume of the subject's functional space.

    Args:
        store: The subject's ROI store.
        index: (N,) index of each voxel in the store; a voxel may occur twice.
        values: (N,).
        path: ``.nii.gz`` to write: float32, NaN outside the N voxels, with the affine of the ROI files.

    Returns:
        The path.

    Raises:
        ValueError: If the store is not of a volume, or does not tell the volume's shape.
    """
    if 'volume_shape' not in store.attributes:
        raise ValueError(
            f'{store.path} ({store.space}) does not tell the shape of the volume that its voxels lie in. Maps need a '
            'store of tools/prepare_nsd.py.'
        )
    volume = np.full(tuple(int(n) for n in store.attributes['volume_shape']), np.nan, np.float32)
    volume[tuple(store.location['voxel'][index].T)] = values
    image = nib.Nifti1Image(volume, store.location['affine'])
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
    return Path(path)
