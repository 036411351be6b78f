"""Move a batch to the device and normalise its images."""

from __future__ import annotations

from typing import Sequence

import torch
from mmengine.model import BaseDataPreprocessor

from mmnfn.registry import MODELS


@MODELS.register_module()
class NFNDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the model's device, and normalise its images.

    The batch is a dict. ``inputs`` becomes float and is normalised; everything else keeps its values.

    Args:
        mean: Mean of the three channels in the order of the model's input, on the scale of 0…255.
        std: Std of the three channels, on the same scale.
        to_rgb: Reverse the channels first, for datasets that read BGR. Those of mmnfn read RGB.
        non_blocking: Whether the copy to the device may overlap with computation.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        to_rgb: bool = False,
        non_blocking: bool = True,
    ):
        super().__init__(non_blocking)
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.to_rgb = to_rgb

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data: ``inputs`` (B, 3, H, W) with values 0…255, and anything else.
            training: Ignored; training and test do the same.

        Returns:
            The batch on the device, ``inputs`` float32.

        Raises:
            ValueError: If ``inputs`` is missing or has another shape.
        """
        inputs = data.get('inputs')
        if not isinstance(inputs, torch.Tensor) or inputs.dim() != 4 or inputs.shape[1] != 3:
            found = tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__
            raise ValueError(
                f'inputs must be a tensor (B, 3, H, W), but got {found}; '
                "collate batches with the dataset's own collate function"
            )
        data = self.cast_data(data)
        inputs = data['inputs']
        if self.to_rgb:
            inputs = inputs.flip(1)
        data['inputs'] = (inputs.float() - self.mean) / self.std
        return data
