"""What an inspection of an NSD release tree finds, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np


class Obstacle(NamedTuple):
    """Something that keeps a tree from a use.

    Attributes:
        reason: In words; damaged files are named in :attr:`Report.problems`, and the reason gives the number there.
        files: Paths relative to the root that would help.
    """

    reason: str
    files: Tuple[str, ...] = ()


@dataclass
class RoiClass:
    """An ROI class of a subject.

    Attributes:
        voxels: Voxels with a label.
        labels: Names of the labels with voxels.
        empty: Names of the labels that the subject lacks, which is legal.
    """

    voxels: int
    labels: Tuple[str, ...]
    empty: Tuple[str, ...]


@dataclass
class Betas:
    """The betas of one subject and version.

    Attributes:
        hdf5: Sessions (1-based) at hand as HDF5, and nifti: as NIfTI.
        planned: Sessions that the subject completed.
        reading: How fast voxels are read, and why, of the first slow session if there is one; empty without a sound
            file.
        has_ncsnr: Whether ``ncsnr.nii.gz`` exists.
        image_id: (trials,) 0-based 73k id of each trial of the sessions at hand; None without a design file.
        shared: (trials,) bool, whether the image is shared.
        seen_by_all: Images that every subject saw three times; None where the presentations cannot be read.
        obstacles: What keeps the sessions from being used.
        ncsnr_obstacles: What keeps ncsnr from being read or estimated.
    """

    hdf5: Tuple[int, ...] = ()
    nifti: Tuple[int, ...] = ()
    planned: int = 0
    reading: str = ''
    has_ncsnr: bool = False
    image_id: Optional[np.ndarray] = None
    shared: Optional[np.ndarray] = None
    seen_by_all: Optional[int] = None
    obstacles: List[Obstacle] = field(default_factory=list)
    ncsnr_obstacles: List[Obstacle] = field(default_factory=list)

    @property
    def sessions(self) -> List[int]:
        """Sessions (1-based) at hand."""
        return sorted({*self.hdf5, *self.nifti})

    @property
    def gaps(self) -> List[int]:
        """Sessions (1-based) that are missing before the last one at hand."""
        return sorted(set(range(1, max(self.sessions, default=0))) - set(self.sessions))

    @property
    def suffix(self) -> str:
        """``'nii.gz'`` for a copy with NIfTI files only, else ``'hdf5'``."""
        return 'nii.gz' if self.nifti and not self.hdf5 else 'hdf5'

    def images(self, shared: bool = False, times: int = 1) -> Optional[int]:
        """How many images were seen at least some times in the sessions at hand; None without a design file.

        Args:
            shared: Count only the shared images.
            times: How often an image must have been seen.
        """
        if self.image_id is None:
            return None
        ids = self.image_id[self.shared] if shared else self.image_id
        return int((np.unique(ids, return_counts=True)[1] >= times).sum())


@dataclass
class Subject:
    """What there is of a subject.

    Attributes:
        name: ``'subj0N'``.
        rois: ROI class → what it holds; None for one that is missing or damaged.
        roi_states: ROI class → in words: ``'present'``, ``'missing'``, ``'no label table'`` or ``'problem N'``.
        other_rois: Stems of further files in ``roi/``.
        union: Voxels in any of the ROI classes at hand; None without any.
        brain: Voxels of the brain mask, or in words why there is no number.
        valid_maps: Number of ``valid_sessionNN.nii.gz``.
        response_trials: Rows of ``responses.tsv``, or in words why there is no number.
        betas: Version → betas.
        obstacles: What keeps the ROIs from being used.
    """

    name: str
    rois: Dict[str, Optional[RoiClass]] = field(default_factory=dict)
    roi_states: Dict[str, str] = field(default_factory=dict)
    other_rois: Tuple[str, ...] = ()
    union: Optional[int] = None
    brain: Any = 'missing'
    valid_maps: int = 0
    response_trials: Any = 'missing'
    betas: Dict[str, Betas] = field(default_factory=dict)
    obstacles: List[Obstacle] = field(default_factory=list)


@dataclass
class CommonFile:
    """A file of all subjects.

    Attributes:
        name: What it is.
        path: Relative to the root.
        state: ``'present'``, ``'missing'`` or ``'problem N'``.
        detail: What it holds.
        obstacles: What keeps it from being used.
    """

    name: str
    path: str
    state: str = 'missing'
    detail: str = ''
    obstacles: List[Obstacle] = field(default_factory=list)


@dataclass(frozen=True)
class Use:
    """Whether a use is possible.

    Attributes:
        name: The use.
        answer: ``'yes'``, ``'partly'`` or ``'no'``.
        reason: Why.
        files: Paths relative to the root that are to be downloaded for it.
        advice: What else to do.
        subject: ``'subj0N'``; empty for a use of the whole tree.
        version: Version of the betas; empty for a use without betas.
    """

    name: str
    answer: str
    reason: str
    files: Tuple[str, ...] = ()
    advice: str = ''
    subject: str = ''
    version: str = ''


@dataclass
class Report:
    """What is in a release tree.

    Attributes:
        root: The tree.
        versions: Versions of the betas that were looked at.
        subjects: The subjects that were looked at.
        common: The files of all subjects.
        uses: What can be done.
        problems: One message for each file that is not as it should be.
    """

    root: Path
    versions: Tuple[str, ...]
    subjects: List[Subject] = field(default_factory=list)
    common: Dict[str, CommonFile] = field(default_factory=dict)
    uses: List[Use] = field(default_factory=list)
    problems: List[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if there are problems; missing files are none."""
        return int(bool(self.problems))

    def relative(self, path: Path) -> str:
        """A path relative to the root."""
        return path.relative_to(self.root).as_posix()

    def problem(self, message: str) -> Obstacle:
        """Note a problem, once, and say where it stands."""
        if message not in self.problems:
            self.problems.append(message)
        return Obstacle(f'problem {self.problems.index(message) + 1}')

    def attempt(self, paths: Sequence[Path], function: Callable, *args) -> Tuple[Any, List[Obstacle]]:
        """Call a reader.

        Args:
            paths: Files that it needs.
            function: The reader.
            *args: Its arguments.

        Returns:
            What it gave, or None; and what stands against it: files that are missing, or the error as a problem.
        """
        missing = tuple(self.relative(path) for path in paths if not path.exists())
        if missing:
            names = ', '.join(name.rsplit('/', 1)[1] for name in missing)
            return None, [Obstacle(f'{names} missing', missing)]
        try:
            return function(*args), []
        except FileNotFoundError as error:  # of a file that is not among the paths
            return None, [Obstacle(str(error).replace(f'{self.root}/', ''))]
        except (ValueError, OSError) as error:
            return None, [self.problem(str(error))]
        except Exception as error:  # one damaged file must not hide what there is to say of the others
            return None, [self.problem(f'{", ".join(map(str, paths))} cannot be read: {error!r}. Download again.')]
