"""Transforms of NSD samples, and the collation of samples into batches."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import Dict, List, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmnfn.nsd.coco import captions_by_image
from mmnfn.registry import FUNCTIONS, TRANSFORMS


@TRANSFORMS.register_module()
class WeightByReliability(BaseTransform):
    """Weight the responses of ``NSDDataset`` by how reliable their voxels are.

    A response is multiplied by the square root of its voxel's noise ceiling (as a fraction), divided by the root mean
    square of these weights over the voxels to preserve the mean variance. Voxels without a known noise ceiling get the
    weight 0. This is for training only; encoding is scored on unweighted responses.

    Args:
        power: Power of the noise ceiling; 0.5 is the square root, 0 gives all voxels the same weight.

    Raises:
        ValueError: If no voxel has a noise ceiling above 0.
    """

    def __init__(self, power: float = 0.5):
        self.power = power
        self._scales: Dict[str, np.ndarray] = {}

    def transform(self, results: dict) -> dict:
        """Weight one sample."""
        subject = results['subject']
        if subject not in self._scales:
            self._scales[subject] = self._scale(results)
        return dict(results, responses=results['responses'] * self._scales[subject])

    def _scale(self, results: dict) -> np.ndarray:
        ceiling = np.nan_to_num(results['noise_ceiling'].numpy())
        weights = np.where(ceiling > 0, np.maximum(ceiling, 1e-12) ** self.power, 0)
        if not weights.any():
            raise ValueError(
                f'WeightByReliability: no voxel of {results["subject"]} has a noise ceiling above 0. Leave it out.'
            )
        return (weights / np.sqrt(np.mean(weights**2))).astype(np.float32)


@TRANSFORMS.register_module()
class LoadCaption(BaseTransform):
    """Add a COCO caption of the image to a sample of ``NSDDataset``, as ``caption``.

    Args:
        stim_info: ``nsd_stim_info_merged.csv``.
        annotation_dir: Folder with COCO's ``captions_train2017.json`` and ``captions_val2017.json``.
        random: Draw one of the image's captions each time; False takes the first.

    Raises:
        FileNotFoundError, ValueError: See :func:`mmnfn.nsd.coco.captions_by_image`, when a dataset is built with it
            or at the first sample.
    """

    def __init__(self, stim_info: str, annotation_dir: str, random: bool = True):
        self.stim_info, self.annotation_dir, self.random = stim_info, annotation_dir, random

    def prepare(self) -> None:
        """Read the captions now, so that data workers, which are forked anew in each epoch, need not read them."""
        _read_captions(self.stim_info, self.annotation_dir)

    def transform(self, results: dict) -> dict:
        """Add the caption of one sample."""
        captions = _read_captions(self.stim_info, self.annotation_dir)[results['image_id']]
        return dict(results, caption=captions[np.random.randint(len(captions)) if self.random else 0])


@lru_cache(maxsize=1)
def _read_captions(stim_info: str, annotation_dir: str) -> Dict[int, List[str]]:
    """Read the captions by 0-based 73k id; the datasets of a run share them."""
    return captions_by_image(stim_info, annotation_dir)


@TRANSFORMS.register_module()
class PackNSDInputs(BaseTransform):
    """Turn a sample of ``NSDDataset`` into tensors.

    Adds ``inputs`` (3, H, W) uint8 and keeps ``responses`` (N,) float32, ``image_id``, ``photo_id``, ``split``,
    ``geometry``, ``noise_ceiling``, ``ncsnr`` and, if there is one, ``caption``.
    """

    KEPT = ('image_id', 'photo_id', 'split', 'geometry', 'noise_ceiling', 'ncsnr', 'caption')

    def transform(self, results: dict) -> dict:
        """Pack one sample."""
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        packed = dict(inputs=torch.from_numpy(image), responses=torch.from_numpy(results['responses']))
        return dict(packed, **{key: results[key] for key in self.KEPT if key in results})


@FUNCTIONS.register_module()
def collate_subject_batch(samples: Sequence[dict]) -> Dict:
    """Collate samples into a batch: images are stacked, responses are stacked by subject.

    Returns:
        dict with ``inputs`` (B, 3, H, W) uint8, ``image_id`` (B,) int64, ``split`` (list of str) and, if the samples
        have them, ``photo_id`` (B,) int64 and ``caption`` (list of str); and of the subject ``responses`` (B, N)
        float32, ``geometry``, ``noise_ceiling`` (N,) in percent and ``ncsnr`` (N,). With several subjects the latter
        four are lists with one entry per subject, in the order of the batch.

    Raises:
        ValueError: If the samples of a subject are not consecutive.
    """
    groups = [list(group) for _, group in groupby(samples, key=lambda sample: sample['geometry'].subject)]
    subjects = [group[0]['geometry'].subject for group in groups]
    if len(set(subjects)) < len(subjects):
        raise ValueError(
            f'a batch has samples of {", ".join(sorted(set(subjects)))} in mixed order; set batch_sampler=dict('
            "type='mmnfn.SubjectBatchSampler') in the dataloader."
        )
    batch = dict(
        inputs=torch.stack([sample['inputs'] for sample in samples]),
        image_id=torch.tensor([sample['image_id'] for sample in samples]),
        split=[sample['split'] for sample in samples],
        responses=[torch.stack([sample['responses'] for sample in group]) for group in groups],
        **{key: [group[0][key] for group in groups] for key in ('geometry', 'noise_ceiling', 'ncsnr')},
    )
    if len(groups) == 1:
        batch.update({key: batch[key][0] for key in ('responses', 'geometry', 'noise_ceiling', 'ncsnr')})
    if 'photo_id' in samples[0]:
        batch['photo_id'] = torch.tensor([sample['photo_id'] for sample in samples])
    if 'caption' in samples[0]:
        batch['caption'] = [sample['caption'] for sample in samples]
    return batch
