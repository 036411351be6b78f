"""Linear maps of their own for the voxels of each subject."""

from __future__ import annotations

import logging
import math
from typing import Dict, Optional, Sequence, Set, Union

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmnfn.nsd.release import subject_names
from mmnfn.structures import SubjectGeometry

ADAPTERS = ('fourier', 'table')
INIT_STD = 0.02  # of all weights of the fMRI tower
NSD_SUBJECTS = tuple(f'subj{number:02d}' for number in range(1, 9))


class SubjectAdapter(nn.Module):
    """Give each voxel of a subject a vector that its response is multiplied with.

    - ``kind='fourier'``: the vector is a smooth function of the voxel's position, a linear map (one per subject) of
      random Fourier features of its coordinates. Neighbours get similar vectors, just as they have similar tuning in
      the cortex, and the number of parameters does not depend on the number of voxels.
    - ``kind='table'``: a free vector for each voxel, like MindEye2's linear layer per subject.

    The maps of all subjects are one parameter, so it takes part in every step, whichever subject the batch holds.

    Args:
        embed_dims: D, width of the vectors.
        kind: ``'fourier'`` or ``'table'``.
        subjects: Subjects that get a map, as numbers or names, or a single one.
        num_features: Fourier features, half of them sines.
        wavelengths: Shortest and longest wavelength of the features, in mm.
        max_voxels: Largest number of voxels (over all ROIs) of a subject, for ``'table'``.

    Raises:
        ValueError: If an argument is unknown or out of range, or ``'table'`` has no ``max_voxels``.
    """

    def __init__(
        self,
        embed_dims: int,
        kind: str = 'fourier',
        subjects: Union[int, str, Sequence[Union[int, str]]] = NSD_SUBJECTS,
        num_features: int = 128,
        wavelengths: Sequence[float] = (8.0, 120.0),
        max_voxels: Optional[int] = None,
    ):
        super().__init__()
        if kind not in ADAPTERS:
            raise ValueError(f'kind of the adapter must be one of {ADAPTERS}, but got {kind!r}')
        subjects = subject_names(subjects)
        if not subjects or len(set(subjects)) < len(subjects):
            raise ValueError(f'subjects must hold at least one name and none twice, but got {tuple(subjects)}')
        self.kind = kind
        self.subjects: Dict[str, int] = {name: number for number, name in enumerate(subjects)}
        if kind == 'table':
            if max_voxels is None or max_voxels < 1:
                raise ValueError(f"max_voxels must be at least 1 with kind='table', but got {max_voxels}")
            self.maps = nn.Parameter(torch.randn(len(subjects), max_voxels, embed_dims) * INIT_STD)
        else:
            if num_features < 2 or num_features % 2 or not 0 < wavelengths[0] <= wavelengths[1]:
                raise ValueError(
                    'num_features must be even and wavelengths (shortest, longest) above 0, but got '
                    f'{num_features} and {tuple(wavelengths)}'
                )
            # Directions uniform on the sphere, wavelengths log-uniform; fixed, but saved in the checkpoint.
            direction = nn.functional.normalize(torch.randn(num_features // 2, 3), dim=1)
            logarithm = torch.empty(num_features // 2, 1).uniform_(*(math.log(length) for length in wavelengths))
            self.register_buffer('frequencies', 2 * math.pi * direction / logarithm.exp())
            self.maps = nn.Parameter(torch.randn(len(subjects), num_features, embed_dims) * INIT_STD)
        self._warned: Set[str] = set()
        self.register_buffer('trained_subjects', torch.zeros(len(subjects), dtype=torch.int32))

    def _warn(self, subject: str) -> None:
        """Warn once per subject."""
        if subject in self._warned:
            return
        self._warned.add(subject)
        others = [name for name, trained in zip(self.subjects, self.trained_subjects.tolist()) if trained]
        print_log(
            f'{subject} was not trained with {", ".join(others)}: its map in the subject adapter is noise, and so is '
            'what is computed with it. Name the same subjects in all dataloaders; to adapt the model to a new person, '
            'use configs/nfn/adapt_subject.py; to test the backbone on one, configs/encoding.',
            'current',
            logging.WARNING,
        )

    def forward(self, geometry: SubjectGeometry, voxels: Union[Tensor, slice] = slice(None)) -> Tensor:
        """Compute the vectors (N, D) of the voxels of a subject, all or those with the indices ``voxels``.

        A warning in the log says if the subject's map was not trained, because the vectors are then noise.

        Raises:
            ValueError: If the subject has no map, or more than ``max_voxels`` voxels.
        """
        if geometry.subject not in self.subjects:
            raise ValueError(
                f'{geometry.subject} has no map in the subject adapter, which is for {", ".join(self.subjects)}; add '
                'it to subjects and train, or use a model without adapter'
            )
        number = self.subjects[geometry.subject]
        if not self.training and not self.trained_subjects[number] and self.trained_subjects.any():
            self._warn(geometry.subject)
        own = self.maps[number]
        coordinates = geometry.coordinates.to(own.dtype)
        if self.kind == 'table':
            if len(coordinates) > len(own):
                raise ValueError(
                    f'{geometry.subject} has {len(coordinates)} voxels, but max_voxels of the subject adapter is '
                    f'{len(own)}'
                )
            return own[: len(coordinates)][voxels]
        with torch.autocast(own.device.type, enabled=False):  # half precision has too few digits for the angle
            angle = coordinates[voxels] @ self.frequencies.to(own.dtype).t()
        return torch.cat([angle.sin(), angle.cos()], dim=1) @ own
