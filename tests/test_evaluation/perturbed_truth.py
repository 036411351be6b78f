"""A detector and a segmentor that predict the annotations with errors, which depend on the image alone.

Their metrics are neither 0 nor 1, without any training.
"""

import numpy as np
import torch
from mmdet.registry import MODELS as DET_MODELS
from mmengine.model import BaseModel
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import MODELS as SEG_MODELS
from torch import nn


class _Perturbed(BaseModel):
    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        assert mode == 'predict'
        for sample in data_samples:
            self.perturb(sample, np.random.default_rng(int(''.join(filter(str.isdigit, sample.img_path))[-9:])))
        return data_samples


@DET_MODELS.register_module()
class PerturbedDetector(_Perturbed):
    """Move, lose, relabel and invent boxes; masks are the parts of the true masks inside the boxes."""

    def perturb(self, sample, rng):
        height, width = sample.ori_shape
        truth = sample.gt_instances  # loaded after Resize, so at the size of the original image
        boxes, masks = [], []
        for box, mask in zip(truth.bboxes, truth.masks.to_ndarray() if len(truth) else ()):
            moved = (box.tensor if hasattr(box, 'tensor') else box).flatten()
            size = (moved[2:] - moved[:2]).repeat(2)
            moved = moved + size * torch.tensor(rng.normal(0, 0.06, 4), dtype=torch.float32)
            inside = torch.zeros(height, width, dtype=torch.bool)
            x1, y1, x2, y2 = moved.round().int().clamp(min=0).tolist()
            inside[y1:y2, x1:x2] = True
            boxes.append(moved)
            masks.append(torch.tensor(mask, dtype=torch.bool) & inside)
        labels = [label if rng.random() > 0.15 else 0 for label in truth.labels.tolist()]
        kept = [i for i in range(len(boxes)) if rng.random() > 0.2]
        for _ in range(rng.integers(0, 3)):
            x, y = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
            boxes.append(torch.tensor([x, y, x + width / 3, y + height / 3], dtype=torch.float32))
            masks.append(torch.rand(height, width, generator=torch.Generator().manual_seed(0)) > 0.5)
            labels.append(0)
            kept.append(len(boxes) - 1)
        sample.pred_instances = InstanceData(
            bboxes=torch.stack([boxes[i] for i in kept]) if kept else torch.zeros(0, 4),
            scores=torch.tensor([round(rng.random(), 2) for _ in kept]),
            labels=torch.tensor([labels[i] for i in kept], dtype=torch.int64),
            masks=torch.stack([masks[i] for i in kept]) if kept else torch.zeros(0, height, width, dtype=torch.bool),
        )


@SEG_MODELS.register_module()
class PerturbedSegmentor(_Perturbed):
    """Predict the next class in every tenth row, and class 0 for ignored pixels."""

    def __init__(self, num_classes, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.num_classes = num_classes

    def perturb(self, sample, rng):
        truth = sample.gt_sem_seg.data.clone()
        ignored = truth == 255
        truth[:, rng.integers(10) :: 10] += 1
        truth[ignored | (truth > self.num_classes - 1)] = 0
        sample.pred_sem_seg = PixelData(data=truth)
