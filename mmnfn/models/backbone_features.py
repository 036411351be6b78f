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
    """Features of a frozen backbone for voxel-wise encoding; there is nothing to train.

    Every map of ``backbone`` (choose stages by its ``out_indices``) is average-pooled to ``grid`` × ``grid`` cells,
    which keeps coarse position: early visual cortex cannot be predicted without it. The cells of all maps are
    concatenated.

    Args:
        backbone: Config of a backbone that gives 4-D maps; load weights by its ``init_cfg`` or as the test checkpoint.
        grid: Cells along a side.
        data_preprocessor: Config; None for ``mmnfn.NFNDataPreprocessor``.
        init_cfg: Initialisation of mmengine.
    """

    def __init__(
        self,
        backbone: dict,
        grid: int = 4,
        data_preprocessor: Optional[Union[dict, nn.Module]] = None,
        init_cfg: Optional[dict] = None,
    ):
        super().__init__(data_preprocessor or dict(type='mmnfn.NFNDataPreprocessor'), init_cfg)
        if grid < 1:
            raise ValueError(f'grid is {grid}; it must be at least 1 cell.')
        self.backbone = MODELS.build(backbone)
        self.grid = grid

    @torch.no_grad()
    def _bands(self, inputs: Tensor) -> List[Tensor]:
        """(B, C·grid²) of each map."""
        return [F.adaptive_avg_pool2d(m, self.grid).flatten(1) for m in feature_maps(self.backbone(inputs))]

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images → (B, Σ_maps C·grid²) features."""
        return torch.cat(self._bands(inputs), dim=1)

    def forward(self, inputs: Tensor, image_id: Optional[Tensor] = None, mode: str = 'tensor', **kwargs):
        """Features in mode 'tensor'; in mode 'predict' one element per image with ``features``, ``bands``
        (how many features each map gives) and ``image_id``.

        Raises:
            ValueError: For mode 'loss', because nothing is trained here.
        """
        if mode == 'tensor':
            return self.extract_feat(inputs)
        if mode == 'predict':
            return self.predict(inputs, image_id)
        raise ValueError(f'mode {mode!r}: BackboneFeatures is frozen, use it with tools/test.py.')

    def predict(self, inputs: Tensor, image_id: Tensor) -> List[BaseDataElement]:
        """One element per image."""
        bands = self._bands(inputs)
        sizes = tuple(band.shape[1] for band in bands)
        features = torch.cat(bands, dim=1)
        return [BaseDataElement(features=f, bands=sizes, image_id=int(i)) for f, i in zip(features, image_id)]
