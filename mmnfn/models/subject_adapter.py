"""What a subject's own voxels say: linear maps that belong to one subject each."""

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
INIT_STD = 0.02  # as of the other parameters
NSD_SUBJECTS = tuple(f'subj{number:02d}' for number in range(1, 9))


class SubjectAdapter(nn.Module):
    """A vector for each voxel of a subject, with which its response is multiplied.

    - ``kind='fourier'``: the vector is a smooth function of the place of the voxel, a linear map (one for each subject)
      of random Fourier features of its coordinates. Neighbours get similar vectors, as they have similar tuning in the
      cortex, and the number of parameters does not depend on the number of voxels.
    - ``kind='table'``: a free vector for each voxel, as the linear layer per subject of MindEye2.

    All subjects' maps are one parameter, so that it takes part in every step, whichever subject the batch holds.

    Args:
        embed_dims: D, width of the vectors.
        kind: ``'fourier'`` or ``'table'``.
        subjects: The subjects that there are maps for, as numbers or names, or a single one.
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
            # directions even over the sphere, wavelengths even in their logarithm; fixed, and kept in the checkpoint
            direction = nn.functional.normalize(torch.randn(num_features // 2, 3), dim=1)
            logarithm = torch.empty(num_features // 2, 1).uniform_(*(math.log(length) for length in wavelengths))
            self.register_buffer('frequencies', 2 * math.pi * direction / logarithm.exp())
            self.maps = nn.Parameter(torch.randn(len(subjects), num_features, embed_dims) * INIT_STD)
        self._warned: Set[str] = set()
        self.register_buffer('trained_subjects', torch.zeros(len(subjects), dtype=torch.int32))

    def _warn(self, subject: str) -> None:
        """Once for each subject."""
        if subject in self._warned:
            return
        self._warned.add(subject)
        others = [name for name, trained in zip(self.subjects, self.trained_subjects.tolist()) if trained]
        print_log(
            f'{subject} was not trained with {", ".join(others)}: its map in the subject adapter is noise, and so are '
            'its embeddings and their retrieval. Name the same subjects for all dataloaders; configs/encoding tests '
            'on a held-out subject what the backbone has learned.',
            'current',
            logging.WARNING,
        )

    def forward(self, geometry: SubjectGeometry) -> Tensor:
        """Vectors (N, D) of the voxels of a subject.

        Where the map was not trained with the others, the log is warned: what it gives is noise.

        Raises:
            ValueError: If there is no map for the subject, or it has more than ``max_voxels`` voxels.
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
            return own[: len(coordinates)]
        with torch.autocast(own.device.type, enabled=False):  # half precision has too few digits for the angle
            angle = coordinates @ self.frequencies.to(own.dtype).t()
        return torch.cat([angle.sin(), angle.cos()], dim=1) @ own
