"""A frozen backbone as a feature extractor."""

from __future__ import annotations

from typing import List, Optional, Union

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn import functional as F

from mmnfn.registry import MODELS

from .image_head import feature_maps


@MODELS.register_module()
class BackboneFeatures(BaseModel):
    """Extract features of a frozen backbone for voxel-wise encoding; nothing is trained.

    Every map of ``backbone`` (choose stages by its ``out_indices``) is average-pooled to ``grid`` × ``grid`` cells,
    which keeps coarse position, without which early visual cortex cannot be predicted. The cells of all maps are
    concatenated.

    Args:
        backbone: Config of a backbone that returns maps (B, C, h, w). Its weights come from its ``init_cfg`` or the
            tested checkpoint.
        grid: Cells along a side.
        low_level: Config of features to compare with, such as ``dict(type='mmnfn.LowLevelFeatures')``, which are
            pooled likewise and kept apart; None for none.
        data_preprocessor: Config; None for ``mmnfn.NFNDataPreprocessor``.
        init_cfg: MMEngine's initialisation.
    """

    def __init__(
        self,
        backbone: dict,
        grid: int = 4,
        low_level: Optional[dict] = None,
        data_preprocessor: Optional[Union[dict, nn.Module]] = None,
        init_cfg: Optional[dict] = None,
    ):
        super().__init__(data_preprocessor or dict(type='mmnfn.NFNDataPreprocessor'), init_cfg)
        if grid < 1:
            raise ValueError(f'grid is {grid}; it must be at least 1 cell.')
        self.backbone = MODELS.build(backbone)
        self.low_level = None if low_level is None else MODELS.build(low_level)
        self.grid = grid

    @torch.no_grad()
    def _bands(self, backbone: nn.Module, inputs: Tensor) -> List[Tensor]:
        """Pool each map to (B, C·grid²)."""
        return [F.adaptive_avg_pool2d(m, self.grid).flatten(1) for m in feature_maps(backbone(inputs))]

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Turn normalised images (B, 3, H, W) into features (B, Σ C·grid²), summed over the maps."""
        return torch.cat(self._bands(self.backbone, inputs), dim=1)

    def forward(self, inputs: Tensor, image_id: Optional[Tensor] = None, mode: str = 'tensor', **kwargs):
        """Return the features in mode 'tensor', and the result of :meth:`predict` in mode 'predict'.

        Raises:
            ValueError: For mode 'loss', because nothing is trained here.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'predict':
            return self.predict(inputs, image_id)
        raise ValueError(f'mode {mode!r}: BackboneFeatures is frozen, use it with tools/test.py.')

    def predict(self, inputs: Tensor, image_id: Tensor) -> List[BaseDataElement]:
        """Return an element per image: ``features``, ``bands`` (features of each map), ``image_id``, ``low_level``."""
        bands = self._bands(self.backbone, inputs)
        sizes = tuple(band.shape[1] for band in bands)
        elements = [
            BaseDataElement(features=f, bands=sizes, image_id=int(i)) for f, i in zip(torch.cat(bands, dim=1), image_id)
        ]
        if self.low_level is not None:
            for element, features in zip(elements, torch.cat(self._bands(self.low_level, inputs), dim=1)):
                element.low_level = features
        return elements
