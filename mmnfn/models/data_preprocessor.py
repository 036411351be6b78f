"""Move a batch to the device and normalise its images."""

from __future__ import annotations

from typing import Any, Dict, Sequence, Tuple

import torch
from mmengine.model import BaseDataPreprocessor

from mmnfn.registry import MODELS
from mmnfn.structures import SubjectGeometry


@MODELS.register_module()
class NFNDataPreprocessor(BaseDataPreprocessor):
    """Move a batch to the model's device, and normalise its images.

    The batch is a dict. A geometry is constant for a subject and is moved only once; ``inputs`` becomes float and is
    normalised; everything else keeps its values.

    Args:
        mean: Mean of the three channels in the order of the model's input, on the scale of 0…255.
        std: Std of the three channels, on the same scale.
        to_rgb: Reverse the channels first, for datasets that read BGR. Those of mmnfn read RGB.
        non_blocking: Whether the copy to the device may overlap with computation.

    Raises:
        ValueError: If ``mean`` or ``std`` does not have three values, or ``std`` is not positive.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        to_rgb: bool = False,
        non_blocking: bool = True,
    ):
        super().__init__(non_blocking)
        for name, values in (('mean', mean), ('std', std)):
            if len(values) != 3:
                raise ValueError(f'{name} must have 3 values, one for each channel, but got {tuple(values)}')
        if min(std) <= 0:
            raise ValueError(f'std must be positive, but got {tuple(std)}')
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.to_rgb = to_rgb
        self._geometries: Dict[str, Tuple[SubjectGeometry, SubjectGeometry]] = {}  # before and after the move

    def cast_data(self, data: Any) -> Any:
        """Move a batch, or part of one, to the device."""
        if not isinstance(data, SubjectGeometry):
            return super().cast_data(data)
        given, moved = self._geometries.get(data.subject, (None, None))
        if given is None or moved.coordinates.device != self.device or not _same(given, data):
            prf = None if data.prf is None else data.prf.to(self.device)
            moved = data._replace(coordinates=data.coordinates.to(self.device), prf=prf)
            self._geometries[data.subject] = data, moved
        return moved

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


def _same(one: SubjectGeometry, other: SubjectGeometry) -> bool:
    """Compare two geometries; data workers send a new copy with each batch."""
    return one is other or all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        for a, b in zip(one, other)
    )
