"""The end of the pipeline and the joining of samples to a batch."""

from __future__ import annotations

from typing import Dict, Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmnfn.registry import FUNCTIONS, TRANSFORMS


@TRANSFORMS.register_module()
class PackNSDInputs(BaseTransform):
    """Turn a sample of ``NSDDataset`` into tensors.

    Adds ``inputs`` (3, H, W) uint8 and keeps ``responses`` (N,) float32, ``image_id``, ``split``, ``geometry`` and
    ``noise_ceiling``.
    """

    def transform(self, results: dict) -> dict:
        """Pack one sample."""
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        return dict(
            inputs=torch.from_numpy(image),
            responses=torch.from_numpy(results['responses']),
            image_id=results['image_id'],
            split=results['split'],
            geometry=results['geometry'],
            noise_ceiling=results['noise_ceiling'],
        )


@FUNCTIONS.register_module()
def collate_subject_batch(samples: Sequence[dict]) -> Dict:
    """Join samples of one subject: tensors are stacked, the geometry is the subject's one object.

    Returns:
        dict with ``inputs`` (B, 3, H, W) uint8, ``responses`` (B, N) float32, ``image_id`` (B,) int64, ``split``
        (list of str), ``geometry`` and ``noise_ceiling`` (N,) of the subject, in percent.

    Raises:
        ValueError: If the samples come from several subjects, whose voxels differ.
    """
    subjects = sorted({sample['geometry'].subject for sample in samples})
    if len(subjects) > 1:
        raise ValueError(
            f'a batch has samples of {", ".join(subjects)}; set batch_sampler=dict('
            "type='mmnfn.SubjectBatchSampler') in the dataloader."
        )
    return dict(
        inputs=torch.stack([sample['inputs'] for sample in samples]),
        responses=torch.stack([sample['responses'] for sample in samples]),
        image_id=torch.tensor([sample['image_id'] for sample in samples]),
        split=[sample['split'] for sample in samples],
        geometry=samples[0]['geometry'],
        noise_ceiling=samples[0]['noise_ceiling'],
    )
