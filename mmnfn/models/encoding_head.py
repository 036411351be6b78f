"""Anatomical encoding guidance: the responses of voxels predicted from the backbone's maps."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmnfn.registry import MODELS
from mmnfn.structures import SubjectGeometry

from .image_head import last_feature_maps
from .subject_adapter import NSD_SUBJECTS, SubjectAdapter

MODES = {'smooth': 'fourier', 'free': 'table', 'pooled': 'table', 'prf': 'fourier'}
START_WIDTH = 0.12
"""Width of all fields at the start."""


def gaussian_fields(size: Tuple[int, int], centre: Tensor, width: Tensor) -> Tensor:
    """Compute the weights of Gaussian fields on the cells of a map.

    A Gaussian is the product of one over rows and one over columns, each normalised within the image.

    Args:
        size: Rows h and columns w.
        centre: (V, 2), x and y from −1 (left, top) to 1.
        width: (V,) standard deviations in sides of the image.

    Returns:
        (V, h·w), each row sums to 1.
    """

    def weights(count: int, middle: Tensor) -> Tensor:
        place = (2 * torch.arange(count, dtype=middle.dtype, device=middle.device) + 1) / count - 1
        return torch.softmax(-((place - middle[:, None]) ** 2) / (8 * width[:, None] ** 2), dim=1)

    rows, columns = weights(size[0], centre[:, 1]), weights(size[1], centre[:, 0])
    return (rows[:, :, None] * columns[:, None, :]).flatten(1)


@MODELS.register_module()
class EncodingHead(BaseModule):
    """Predict responses from the backbone's maps through receptive fields that are smooth functions of anatomy.

    Voxel i looks at the maps of the chosen stages through a Gaussian with centre μ_i and width σ_i and weighs their
    channels (each stage first reduced to ``dims`` by a 1×1 convolution) by a_i. μ, σ and a are one linear map per
    subject of Fourier features of the voxel's place (:class:`SubjectAdapter`), so that the number of parameters does
    not depend on the number of voxels, and neighbours in the cortex look at neighbouring places. This is the
    feature-weighted receptive field of St-Yves and Naselaris (2018), made smooth over the cortex as the RetinaMapper of
    the winner of Algonauts 2023.

    A training step draws ``num_voxels`` voxels of each subject, with replacement; which ones depends on the iteration
    and the subject alone, and so is the same on every rank.

    Args:
        in_channels: Channels of the maps that are read, the last ones of the backbone's outputs.
        dims: Channels that each map is reduced to.
        mode: ``'smooth'``; ``'free'``, with a field and weights for each voxel by itself; ``'pooled'``, with weights
            for each voxel by itself and the plain average of the map; ``'prf'``, with the fields that were measured
            (``geometry.prf``) and smooth weights.
        num_voxels: Voxels drawn of each subject in a step.
        subjects, num_features, wavelengths, max_voxels: As of :class:`SubjectAdapter`.
        loss: Config of the loss over the gathered batch; None for :class:`~mmnfn.losses.CorrelationLoss`.
        init_cfg: Initialisation of mmengine.

    Raises:
        ValueError: If ``mode`` is unknown.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        dims: int = 64,
        mode: str = 'smooth',
        num_voxels: int = 2048,
        subjects: Union[int, str, Sequence[Union[int, str]]] = NSD_SUBJECTS,
        num_features: int = 512,
        wavelengths: Sequence[float] = (8.0, 120.0),
        max_voxels: Optional[int] = None,
        loss: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ):
        super().__init__(init_cfg)
        if mode not in MODES:
            raise ValueError(f'mode of the encoding head must be one of {tuple(MODES)}, but got {mode!r}')
        self.in_channels, self.dims = tuple(in_channels), dims
        self.mode, self.num_voxels = mode, num_voxels
        # without a bias, which a correlation does not see
        self.reduce = nn.ModuleList(nn.Conv2d(channels, dims, 1, bias=False) for channels in in_channels)
        self.fields = SubjectAdapter(
            3 + len(in_channels) * dims, MODES[mode], subjects, num_features, wavelengths, max_voxels
        )
        self.loss = MODELS.build(loss or dict(type='mmnfn.CorrelationLoss'))
        self.calls = 0

    def draw(self, geometry: SubjectGeometry, step: int) -> Tensor:
        """Draw the voxels of a step: (num_voxels,) int64 indices into the voxel axis."""
        rng = np.random.default_rng([step, self.fields.subjects[geometry.subject]])
        return torch.from_numpy(rng.integers(0, len(geometry.coordinates), self.num_voxels))

    def receptive_fields(
        self, geometry: SubjectGeometry, voxels: Union[Tensor, slice] = slice(None)
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Compute the fields of voxels, all or those with the indices ``voxels``.

        Returns:
            Centres (V, 2), x to the right and y downwards from −1 to 1; widths (V,), standard deviations in sides of
            the image; channel weights (V, stages, dims).
        """
        vectors = self.fields(geometry, voxels)
        place, weight = vectors.split([3, vectors.shape[1] - 3], dim=1)
        if self.mode == 'prf':
            if geometry.prf is None:
                raise ValueError(
                    f"mode='prf' needs measured receptive fields, and the store of {geometry.subject} has none; "
                    'download prf_angle, prf_eccentricity and prf_size of func1pt8mm, and prepare the store again'
                )
            centre, width = geometry.prf[voxels, :2], geometry.prf[voxels, 2]
        else:
            centre, width = torch.tanh(place[:, :2]), START_WIDTH * place[:, 2].exp()
        if self.mode == 'pooled':
            width = torch.full_like(width, float('inf'))
        return centre, width, weight.unflatten(1, (len(self.in_channels), self.dims))

    def maps(self, feats: Union[Tensor, Sequence[Tensor]]) -> List[Tensor]:
        """Reduce the backbone's maps to (B, dims, h, w) each."""
        maps = last_feature_maps(feats, self.in_channels, 'encoding')
        return [reduce(feat.to(reduce.weight.dtype)) for reduce, feat in zip(self.reduce, maps)]

    def predict(
        self, maps: Sequence[Tensor], geometry: SubjectGeometry, voxels: Union[Tensor, slice] = slice(None)
    ) -> Tensor:
        """Predict responses.

        Args:
            maps: Of :meth:`maps`.
            geometry: Of the subject.
            voxels: Indices (V,) into the voxel axis; all by default.

        Returns:
            (B, V).
        """
        centre, width, weight = self.receptive_fields(geometry, voxels)
        predicted = 0
        for stage, feat in enumerate(maps):
            fields = gaussian_fields(feat.shape[2:], centre, width)
            read = feat.flatten(2) @ fields.t()  # (B, dims, V)
            predicted = predicted + (read * weight[:, stage].t()).sum(dim=1)
        return predicted

    def roi_maps(self, maps: Sequence[Tensor], geometry: SubjectGeometry) -> Tensor:
        """Show where in the images the predicted responses of each ROI come from.

        The prediction of a voxel is a sum over the cells of the maps; here the part of each cell is averaged over the
        voxels of the ROI. What exceeds the image's average is kept.

        Args:
            maps: Of :meth:`maps`.
            geometry: Of the subject.

        Returns:
            (B, K, h, w) of the finest map's cells, not negative, sums over h and w 1; 0 for a ROI that the subject
            lacks.
        """
        parts = zip(*(values.split(geometry.roi_sizes) for values in self.receptive_fields(geometry)))
        rois = []
        for centre, width, weight in parts:
            total = 0
            for stage, feat in enumerate(maps):
                fields = gaussian_fields(feat.shape[2:], centre, width)
                mixed = fields.t() @ weight[:, stage] / max(len(width), 1)  # (h·w, dims)
                part = (feat.flatten(2) * mixed.t()).sum(dim=1).unflatten(1, feat.shape[2:])
                part = F.interpolate(part[:, None], size=maps[0].shape[2:]) * feat[0, 0].numel()
                total = total + part[:, 0]
            rois.append((total - total.mean(dim=(1, 2), keepdim=True)).clamp(min=0))
        rois = torch.stack(rois, dim=1)
        return rois / rois.sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)

    def forward(
        self,
        feats: Union[Tensor, Sequence[Tensor]],
        responses: Union[Tensor, List[Tensor]],
        geometry: Union[SubjectGeometry, List[SubjectGeometry]],
        noise_ceiling: Optional[Union[Tensor, List[Tensor]]] = None,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict the drawn voxels of a batch.

        Args:
            feats: The backbone's maps (B, C, h, w).
            responses: (B, N) z-scored responses of one subject, or a list with those of each.
            geometry: Of the subject, or a list.
            noise_ceiling: (N,) percent, or a list; None weighs all voxels alike. NaN counts as 0.

        Returns:
            Predictions, responses and weights (B, V), V = num_voxels, and the number of each sample's subject (B,).
        """
        iteration = MessageHub.get_current_instance().get_info('iter')
        if iteration is None:  # no runner counts
            iteration, self.calls = self.calls, self.calls + 1
        if not isinstance(responses, list):
            responses, geometry, noise_ceiling = [responses], [geometry], [noise_ceiling]
        maps = self.maps(feats)
        start, parts = 0, []
        for k, (own, subject) in enumerate(zip(responses, geometry)):
            rows = slice(start, start + len(own))
            start += len(own)
            drawn = self.draw(subject, iteration).to(own.device, non_blocking=True)
            ceiling = noise_ceiling[k] if noise_ceiling else None
            weight = own.new_ones(len(drawn)) if ceiling is None else ceiling[drawn].nan_to_num().clamp(min=0) / 100
            number = torch.full((len(own),), self.fields.subjects[subject.subject]).to(own.device, non_blocking=True)
            predicted = self.predict([feat[rows] for feat in maps], subject, drawn)
            parts.append((predicted, own[:, drawn].to(predicted), weight.expand(len(own), -1).to(predicted), number))
        return tuple(torch.cat(part) for part in zip(*parts))
