"""NSD for training: images with the brain responses to them."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from mmnfn.nsd import ROI_CLASSES, ROIStore, StimulusImages
from mmnfn.nsd.noise_ceiling import mixed_noise_ceiling
from mmnfn.nsd.release import parse_subjects
from mmnfn.registry import DATASETS
from mmnfn.utils import listed

from .geometry import subject_geometry

SPLITS = ('train', 'test', 'special515', 'all')


@DATASETS.register_module()
class NSDDataset(BaseDataset):
    """Provide images with a subject's responses to them, averaged over repeats or of single trials.

    Before the pipeline a sample is a dict with ``img`` (H, W, 3) uint8 RGB, ``responses`` (N,) float32 in the voxel
    order of ``geometry``, ``geometry`` (:class:`mmnfn.structures.SubjectGeometry`), ``noise_ceiling`` (N,) in percent
    of variance, ``ncsnr`` (N,), ``image_id`` (0-based 73k id), ``photo_id`` (equal for crops of one photograph, else
    ``image_id``), ``subject`` and ``split``.

    Args:
        data_root: Folder of the ROI stores.
        subjects: Subjects, as numbers or names, or a single one.
        images: File of images, relative to ``data_root`` unless absolute: ``images_<size>.h5`` or
            ``nsd_stimuli.hdf5``.
        split: ``'train'`` (images of one subject only), ``'test'`` (shared images), ``'special515'`` (shared images
            that every subject of the experiment saw three times; 515 in NSD) or ``'all'``.
        roi_names: ROIs as :meth:`mmnfn.nsd.ROIStore.roi` names them (classes, or areas such as ``'V1'``), in the order
            of the model's ROIs, or a single one.
        voxel_order: Order of the voxels within each ROI, ``'stored'`` or ``'hilbert'``, see
            :func:`.geometry.order_voxels`.
        average: Average the repeats of an image; False makes each trial a sample. Single trials need a store made with
            ``tools/prepare_nsd.py --trials``.
        max_sessions: Use only the trials of the first sessions; this needs such a store too.
        shuffle_pairs: Seed of the shuffled-brain control: responses are permuted among the images of a split within
            each subject, so that no image keeps its own response, or one to its photograph; None for no control.
        permute_rois, permute_positions: Seeds of the controls without ROIs and without positions, see
            :func:`subject_geometry`; None for no control.
        pipeline: Transforms, ending with ``mmnfn.PackNSDInputs``. If a transform has a method ``prepare()``, it is
            called here, before data workers start.
        **kwargs: See :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError, ValueError: If a store or the images are missing, or a subject, split or ROI is unknown.
    """

    METAINFO = dict(dataset_type='nsd')

    def __init__(
        self,
        data_root: str,
        subjects: Union[int, str, Sequence[Union[int, str]]],
        images: str,
        split: str = 'train',
        roi_names: Union[str, Sequence[str]] = ROI_CLASSES,
        voxel_order: str = 'stored',
        average: bool = True,
        max_sessions: Optional[int] = None,
        shuffle_pairs: Optional[int] = None,
        permute_rois: Optional[int] = None,
        permute_positions: Optional[int] = None,
        pipeline: Sequence = (),
        **kwargs,
    ):
        if split not in SPLITS:
            raise ValueError(f'split is {split!r}; it must be one of {", ".join(SPLITS)}.')
        if not subjects:
            raise ValueError('subjects is empty; name at least one, e.g. subjects=[1].')
        if max_sessions is not None and max_sessions < 1:
            raise ValueError(f'max_sessions is {max_sessions}; it must be at least 1, or None for all.')
        self.split, self.roi_names = split, tuple(listed(roi_names))
        self.average, self.max_sessions, self.shuffle_pairs = average, max_sessions, shuffle_pairs
        self.stores = {name: ROIStore(Path(data_root) / f'{name}.h5') for name in parse_subjects(subjects)}
        self._check_stores()
        self.images = StimulusImages(Path(data_root) / images)
        self.geometries, self._voxels, self._ceilings, self._ncsnr = {}, {}, {}, {}
        for name, store in self.stores.items():
            self.geometries[name], voxels = subject_geometry(
                store, self.roi_names, voxel_order, permute_rois, permute_positions
            )
            self._voxels[name] = voxels
            self._ceilings[name] = torch.from_numpy(self._noise_ceiling(store)[voxels])
            self._ncsnr[name] = torch.from_numpy(store.ncsnr[voxels])
            lacking = self.images.missing(store.image_id[self._rows(store)])
            if len(lacking):
                raise ValueError(
                    f'{self.images.path} lacks {len(lacking)} images of {name}, e.g. 73k id (0-based) {lacking[0]}. '
                    f'Prepare it together with {store.path}: tools/prepare_nsd.py --image-size {self.images.size}.'
                )
        super().__init__(ann_file='', data_root=data_root, pipeline=list(pipeline), **kwargs)
        for transform in self.pipeline.transforms:
            if hasattr(transform, 'prepare'):
                transform.prepare()

    def _check_stores(self) -> None:
        """Raise a ValueError if a store is of another subject than its name says, or the stores differ in kind."""
        for name, store in self.stores.items():
            if store.subject != name:
                raise ValueError(f'{store.path} is a store of {store.subject}. Give files their own names.')
        for key in ('space', 'beta_version', 'normalization'):
            found = {str(store.attributes.get(key)): store.path for store in self.stores.values()}
            if len(found) > 1:
                (one, path), (other, second) = list(found.items())[:2]
                raise ValueError(f'{key} of {path} is {one!r}, and of {second} {other!r}. Prepare both alike.')

    def _trials(self, store: ROIStore) -> Optional[np.ndarray]:
        """Choose the trials in use, of all images; None if the store's own averages are used."""
        if self.average and self.max_sessions is None:
            return None
        if store.trial_row is None:
            raise ValueError(
                f'average={self.average} and max_sessions={self.max_sessions} need single trials, and {store.path} '
                'holds none. Make it again with tools/prepare_nsd.py --trials (or with --max-sessions).'
            )
        sessions = store.trial_session
        if self.max_sessions is not None and self.max_sessions > sessions.max():
            raise ValueError(f'max_sessions is {self.max_sessions}, but {store.path} has {sessions.max()} sessions.')
        return np.flatnonzero(sessions <= (self.max_sessions or sessions.max()))

    def _noise_ceiling(self, store: ROIStore) -> np.ndarray:
        """Compute the noise ceiling (V,) of this dataset's test responses, in percent of variance."""
        trials, special = self._trials(store), self.split == 'special515'
        if trials is None and not special:
            return store.noise_ceiling
        repeats = store.repeats
        if trials is not None:
            repeats = np.bincount(store.trial_row[trials], minlength=len(store.image_id))
        repeats = repeats[(store.seen_by_all if special else store.split == 'test') & (repeats > 0)]
        if not repeats.size:
            return np.full(len(store.ncsnr), np.nan, np.float32)
        return mixed_noise_ceiling(store.ncsnr, repeats if self.average else np.ones(1)).astype(np.float32)

    def _rows(self, store: ROIStore) -> np.ndarray:
        """Choose the rows of the split's images."""
        if self.split == 'special515':
            chosen = store.seen_by_all
        else:
            chosen = np.isin(store.split, ('train', 'test') if self.split == 'all' else self.split)
        trials = self._trials(store)
        if trials is not None:
            chosen = chosen & np.isin(np.arange(len(chosen)), store.trial_row[trials])
        if not chosen.any():
            raise ValueError(f'{store.path} has no image in split {self.split!r}.')
        return np.flatnonzero(chosen)

    def load_data_list(self) -> List[dict]:
        """List an entry for each subject and image of the split, or for each trial."""
        entries = []
        for number, (name, store) in enumerate(self.stores.items()):
            rows, trials = self._rows(store), self._trials(store)
            shown = dict(zip(rows, rows))  # row of a response → row of its image, another one in the control
            if self.shuffle_pairs is not None:
                rng = np.random.default_rng([self.shuffle_pairs, number])
                shown = dict(zip(rows, _derangement_within(rows, store.split[rows], store.photo_id[rows], rng)))
            if trials is None:
                responses = [(row, dict(row=int(row))) for row in rows]
            else:
                trials = trials[np.isin(store.trial_row[trials], rows)]
                groups = trials[:, None]
                if self.average:
                    trials = trials[np.argsort(store.trial_row[trials], kind='stable')]
                    groups = np.split(trials, np.flatnonzero(np.diff(store.trial_row[trials])) + 1)
                responses = [(store.trial_row[group[0]], dict(trials=group.tolist())) for group in groups]
            for row, response in responses:
                image = shown[row]
                ids = dict(image_id=int(store.image_id[image]), photo_id=int(store.photo_id[image]))
                entries.append(dict(response, **ids, subject=name, split=str(store.split[image])))
        return entries

    def load_responses(self, idx: int) -> np.ndarray:
        """Read the response (N,) float32 of a sample in the voxel order of its geometry; 0 where there is no data."""
        info = super().get_data_info(idx)
        store, voxels = self.stores[info['subject']], self._voxels[info['subject']]
        if 'row' in info:
            return store.responses[info['row']][voxels].astype(np.float32, copy=False)
        values = store.trial_responses[info['trials']][:, voxels].astype(np.float32)
        valid = ~np.isnan(values)
        return np.where(valid, values, 0).sum(0) / np.maximum(valid.sum(0), 1, dtype=np.float32)

    def get_data_info(self, idx: int) -> dict:
        """Read a sample, before the pipeline."""
        info = super().get_data_info(idx)
        subject, image = info['subject'], self.images[info['image_id']]
        return dict(
            info,
            img=image,
            img_shape=image.shape[:2],
            ori_shape=image.shape[:2],
            responses=np.asarray(self.load_responses(idx)),
            geometry=self.geometries[subject],
            noise_ceiling=self._ceilings[subject],
            ncsnr=self._ncsnr[subject],
        )

    def subject_indices(self) -> Dict[str, np.ndarray]:
        """List the sample indices of each subject, from which subject-pure batches are drawn."""
        names = np.asarray([BaseDataset.get_data_info(self, i)['subject'] for i in range(len(self))])
        return {name: np.flatnonzero(names == name) for name in self.stores}


def _derangement_within(
    rows: np.ndarray, groups: np.ndarray, photo_id: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Permute ``rows`` at random within each group, so that none keeps its place or goes to one of its photograph.

    Images are sorted by photograph, and each gets the response of the image that is as many places away as the most
    frequent photograph has images.
    """
    out = rows.copy()
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        _, first, photo, count = np.unique(photo_id[members], True, True, True)
        members = members[np.argsort(first[photo], kind='stable')]
        out[members] = rows[np.roll(members, min(count.max(), len(members) // 2))]
    return out
