"""NSD for training: pictures with the brain responses to them."""

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
    """One sample is one image and one subject's response to it, averaged over the repeats or of a single trial.

    A sample, before the pipeline, is a dict with ``img`` (H, W, 3) uint8 RGB, ``responses`` (N,) float32 in the voxel
    order of ``geometry``, ``geometry`` (:class:`mmnfn.structures.SubjectGeometry`), ``noise_ceiling`` (N,) in percent
    of variance, ``image_id`` (0-based 73k id), ``photo_id`` (the same for crops of one photograph, else ``image_id``),
    ``subject`` and ``split``.

    Args:
        data_root: Folder of the ROI stores.
        subjects: Subjects, as numbers or names, or a single one.
        images: File of pictures, relative to ``data_root`` unless absolute: ``images_<size>.h5`` or
            ``nsd_stimuli.hdf5``.
        split: ``'train'`` (images of one subject only), ``'test'`` (shared images), ``'special515'`` (those of them
            that every subject of the experiment saw three times; 515 in NSD) or ``'all'``.
        roi_names: ROI classes, in the order of the model's ROIs, or a single one.
        voxel_order: Order of the voxels within each ROI, ``'stored'`` or ``'hilbert'`` (neighbours in space follow each
            other), see :func:`.voxel_order.order_voxels`.
        average: Average the repeats of an image; else each trial is a sample. Single trials need a store made with
            ``tools/prepare_nsd.py --trials``.
        max_sessions: Use only the trials of the first sessions; needs such a store too.
        shuffle_pairs: Seed of the shuffled-brain control: responses are permuted among the images of a split within
            each subject, so that no picture keeps its own response, or one to its photograph; None leaves the pairs
            as they are.
        permute_rois, permute_positions: Seeds of the controls without ROIs and without places, see
            :meth:`ROIStore.geometry`; None leaves them as they are.
        pipeline: Transforms, ending with ``mmnfn.PackNSDInputs``. ``prepare()`` of those that have one is called here,
            before data workers start.
        **kwargs: See :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError, ValueError: For a missing store or picture file, an unknown subject, split or ROI.
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
        self.split = split
        if max_sessions is not None and max_sessions < 1:
            raise ValueError(f'max_sessions is {max_sessions}; it must be at least 1, or None for all.')
        self.roi_names = tuple(listed(roi_names))
        self.average, self.max_sessions = average, max_sessions
        self.shuffle_pairs = shuffle_pairs
        self.stores: Dict[str, ROIStore] = {
            name: ROIStore(Path(data_root) / f'{name}.h5') for name in parse_subjects(subjects)
        }
        self._check_stores()
        self.images = StimulusImages(Path(data_root) / images)
        self.geometries, self._voxels, self._ceilings, self._ncsnr = {}, {}, {}, {}
        for name, store in self.stores.items():
            self.geometries[name], self._voxels[name] = subject_geometry(
                store, self.roi_names, voxel_order, permute_rois, permute_positions
            )
            self._ceilings[name] = torch.from_numpy(self._noise_ceiling(store)[self._voxels[name]])
            self._ncsnr[name] = torch.from_numpy(store.ncsnr[self._voxels[name]])
            lacking = self.images.missing(store.image_id[self._rows(store)])
            if len(lacking):
                raise ValueError(
                    f'{self.images.path} lacks {len(lacking)} of the pictures of {name}, e.g. 73k id (0-based) '
                    f'{lacking[0]}. Prepare it together with {store.path}: tools/prepare_nsd.py --image-size '
                    f'{self.images.size}.'
                )
        super().__init__(ann_file='', data_root=data_root, pipeline=list(pipeline), **kwargs)
        for transform in self.pipeline.transforms:
            if hasattr(transform, 'prepare'):
                transform.prepare()

    def _check_stores(self) -> None:
        """ValueError if a store is not of the subject of its name, or they were not made alike."""
        for name, store in self.stores.items():
            if store.subject != name:
                raise ValueError(f'{store.path} is a store of {store.subject}. Give files their own names.')
        for key in ('space', 'beta_version', 'normalization'):
            found = {str(store.attributes.get(key)): store.path for store in self.stores.values()}
            if len(found) > 1:
                (one, path), (other, second) = list(found.items())[:2]
                raise ValueError(f'{key} of {path} is {one!r}, and of {second} {other!r}. Prepare both alike.')

    @property
    def _from_trials(self) -> bool:
        return not self.average or self.max_sessions is not None

    def _trials(self, store: ROIStore) -> np.ndarray:
        """Trials in use, of all images."""
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
        """(V,) percent of variance of a test response as this dataset gives it."""
        special = self.split == 'special515'
        if not self._from_trials and not special:
            return store.noise_ceiling
        repeats = store.repeats
        if self._from_trials:
            repeats = np.bincount(store.trial_row[self._trials(store)], minlength=len(store.image_id))
        repeats = repeats[(store.seen_by_all if special else store.split == 'test') & (repeats > 0)]
        if not repeats.size:
            return np.full(len(store.ncsnr), np.nan, np.float32)
        if not self.average:
            repeats = np.ones(1)
        return mixed_noise_ceiling(store.ncsnr, repeats).astype(np.float32)

    def _rows(self, store: ROIStore) -> np.ndarray:
        """Rows of the images of the split."""
        if self.split == 'all':
            chosen = np.ones(len(store.image_id), bool)
        else:
            chosen = store.seen_by_all if self.split == 'special515' else store.split == self.split
        if self._from_trials:
            chosen = chosen & np.isin(np.arange(len(chosen)), store.trial_row[self._trials(store)])
        if not chosen.any():
            raise ValueError(f'{store.path} has no image in split {self.split!r}.')
        return np.flatnonzero(chosen)

    def load_data_list(self) -> List[dict]:
        """One entry per subject and image of the split, or trial."""
        entries = []
        for number, (name, store) in enumerate(self.stores.items()):
            rows = self._rows(store)
            source = dict(zip(rows, rows))
            if self.shuffle_pairs is not None:
                rng = np.random.default_rng([self.shuffle_pairs, number])
                source = dict(zip(rows, _derangement_within(rows, store.split[rows], store.photo_id[rows], rng)))
            groups = [(row, None) for row in rows]
            if self._from_trials:
                trials = self._trials(store)
                trials = trials[np.isin(store.trial_row[trials], rows)]
                order = trials[np.argsort(store.trial_row[trials], kind='stable')]
                if self.average:
                    repeats = np.split(order, np.flatnonzero(np.diff(store.trial_row[order])) + 1)
                else:
                    repeats = np.split(np.sort(order), len(order))
                groups = [(store.trial_row[trial[0]], trial.tolist()) for trial in repeats]
            for row, trial in groups:  # of the response; the image is another one in the shuffled-brain control
                image = source[row]
                ids = dict(image_id=int(store.image_id[image]), photo_id=int(store.photo_id[image]))
                info = dict(ids, subject=name, split=str(store.split[image]))
                entries.append(dict(info, row=int(row)) if trial is None else dict(info, trials=trial))
        return entries

    def load_responses(self, idx: int) -> np.ndarray:
        """(N,) float32 response of a sample, in the voxel order of its subject's ``geometry``; 0 where there is no
        data.
        """
        return self._responses(super().get_data_info(idx))

    def _responses(self, info: dict) -> np.ndarray:
        store, voxels = self.stores[info['subject']], self._voxels[info['subject']]
        if 'row' in info:
            return store.responses[info['row']][voxels].astype(np.float32, copy=False)
        values = store.trial_responses[info['trials']][:, voxels].astype(np.float32)
        valid = ~np.isnan(values)
        return np.where(valid, values, 0).sum(0) / np.maximum(valid.sum(0), 1, dtype=np.float32)

    def get_data_info(self, idx: int) -> dict:
        """The sample before the pipeline."""
        info = super().get_data_info(idx)
        info['responses'] = np.asarray(self._responses(info))
        info['geometry'] = self.geometries[info['subject']]
        info['noise_ceiling'] = self._ceilings[info['subject']]
        info['ncsnr'] = self._ncsnr[info['subject']]
        info['img'] = self.images[info['image_id']]
        info['img_shape'] = info['ori_shape'] = info['img'].shape[:2]
        return info

    def subject_indices(self) -> Dict[str, np.ndarray]:
        """Sample indices of each subject; what a subject-pure batch is drawn from."""
        names = np.asarray([BaseDataset.get_data_info(self, i)['subject'] for i in range(len(self))])
        return {name: np.flatnonzero(names == name) for name in self.stores}


def _derangement_within(
    rows: np.ndarray, groups: np.ndarray, photo_id: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Permute ``rows`` at random within each group, so that none stays where it was.

    Nor does it go to one of the same photograph: of images in the order of their photographs, the partner is as far
    away as the most frequent photograph has images.
    """
    out = rows.copy()
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        _, first, photo, count = np.unique(photo_id[members], True, True, True)
        members = members[np.argsort(first[photo], kind='stable')]
        out[members] = rows[np.roll(members, min(count.max(), len(members) // 2))]
    return out
