"""Where in an image each ROI feature was taken."""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np
import torch
from torch import nn


@torch.no_grad()
def roi_maps(model: nn.Module, images: Sequence[np.ndarray]) -> Tuple[np.ndarray, Tuple[str, ...]]:
    """The spatial weights with which the image tower pools each ROI feature (:class:`mmnfn.models.ROIImageHead`).

    Args:
        model: A :class:`mmnfn.models.NeuroFusionNet` in evaluation mode.
        images: n images (S, S, 3) uint8 RGB of the size that the model was trained with.

    Returns:
        (n, K, h, w) maps that sum to 1 over h and w, and the K ROI names.

    Raises:
        ValueError: The model has no ROI features.
    """
    if not hasattr(model, 'fmri_encoder'):
        raise ValueError(f'{type(model).__name__} has no ROI features; ROI maps are of a NeuroFusionNet (configs/nfn).')
    device = next(model.parameters()).device
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)
    data = model.data_preprocessor(dict(inputs=inputs), False)
    maps = model.neck(model.extract_feat(data['inputs'])).maps
    return maps.float().cpu().numpy(), tuple(model.fmri_encoder.roi_names)
