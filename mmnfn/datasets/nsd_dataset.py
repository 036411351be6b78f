"""NSD for training: pictures with the brain responses to them."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from mmnfn.registry import DATASETS

from .images import StimulusImages
from .nsd_layout import ROI_CLASSES, parse_subjects
from .roi_store import ROIStore

SPLITS = ('train', 'test', 'all')


@DATASETS.register_module()
class NSDDataset(BaseDataset):
    """One sample is one image and one subject's mean response to it.

    A sample, before the pipeline, is a dict with ``img`` (H, W, 3) uint8 RGB, ``responses`` (N,) float32 in the voxel
    order of ``geometry``, ``geometry`` (:class:`mmnfn.structures.SubjectGeometry`), ``noise_ceiling`` (N,) in percent
    of variance, ``image_id`` (0-based 73k id), ``subject`` and ``split``.

    Args:
        data_root: Folder of the ROI stores.
        subjects: Subjects, as numbers or names.
        images: File of pictures, relative to ``data_root`` unless absolute: ``images_<size>.h5`` or
            ``nsd_stimuli.hdf5``.
        split: ``'train'`` (images of one subject only), ``'test'`` (shared images) or ``'all'``.
        roi_names: ROI classes, in the order of the model's ROIs.
        shuffle_pairs: Seed of the shuffled-brain control: responses are permuted among the images of a split within
            each subject, so that no picture keeps its own response; None leaves the pairs as they are.
        pipeline: Transforms, ending with ``mmnfn.PackNSDInputs``.
        **kwargs: See :class:`mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError, ValueError: For a missing store or picture file, an unknown subject, split or ROI.
    """

    METAINFO = dict(dataset_type='nsd')

    def __init__(
        self,
        data_root: str,
        subjects: Sequence[Union[int, str]],
        images: str,
        split: str = 'train',
        roi_names: Sequence[str] = ROI_CLASSES,
        shuffle_pairs: Optional[int] = None,
        pipeline: Sequence = (),
        **kwargs,
    ):
        if split not in SPLITS:
            raise ValueError(f'split is {split!r}; it must be one of {", ".join(SPLITS)}.')
        if not subjects:
            raise ValueError('subjects is empty; name at least one, e.g. subjects=[1].')
        self.split = split
        self.roi_names = tuple(roi_names)
        self.shuffle_pairs = shuffle_pairs
        self.stores: Dict[str, ROIStore] = {
            name: ROIStore(Path(data_root) / f'{name}.h5') for name in parse_subjects(subjects)
        }
        self.images = StimulusImages(Path(data_root) / images)
        self.geometries, self._voxels, self._ceilings = {}, {}, {}
        for name, store in self.stores.items():
            self.geometries[name], self._voxels[name] = store.geometry(self.roi_names)
            self._ceilings[name] = torch.from_numpy(store.noise_ceiling[self._voxels[name]])
        super().__init__(ann_file='', data_root=data_root, pipeline=list(pipeline), **kwargs)

    def load_data_list(self) -> List[dict]:
        """One entry per subject and image of the split."""
        entries = []
        for number, (name, store) in enumerate(self.stores.items()):
            rows = np.arange(len(store.image_id)) if self.split == 'all' else np.flatnonzero(store.split == self.split)
            if not rows.size:
                raise ValueError(f'{store.path} has no image in split {self.split!r}.')
            partner = rows
            if self.shuffle_pairs is not None:
                partner = _derangement_within(
                    rows, store.split[rows], np.random.default_rng([self.shuffle_pairs, number])
                )
            entries += [
                dict(subject=name, row=int(r), image_id=int(store.image_id[i]), split=str(store.split[i]))
                for i, r in zip(rows, partner)
            ]
        return entries

    def get_data_info(self, idx: int) -> dict:
        """The sample before the pipeline."""
        info = super().get_data_info(idx)
        name = info['subject']
        responses = self.stores[name].responses[info.pop('row')][self._voxels[name]]
        info['responses'] = np.asarray(responses, np.float32)
        info['geometry'] = self.geometries[name]
        info['noise_ceiling'] = self._ceilings[name]
        info['img'] = self.images[info['image_id']]
        info['img_shape'] = info['ori_shape'] = info['img'].shape[:2]
        return info

    def subject_indices(self) -> Dict[str, np.ndarray]:
        """Sample indices of each subject; what a subject-pure batch is drawn from."""
        names = np.asarray([BaseDataset.get_data_info(self, i)['subject'] for i in range(len(self))])
        return {name: np.flatnonzero(names == name) for name in self.stores}


def _derangement_within(rows: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute ``rows`` within each group so that none stays where it was (a random cycle)."""
    out = rows.copy()
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        out[members] = rows[np.roll(members, 1)]
    return out
