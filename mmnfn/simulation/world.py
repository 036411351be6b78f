"""The whole simulated world: NSD tree, downstream data and the truth behind both."""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Callable, ContextManager, Iterator, List, NamedTuple, Optional, Tuple

import cv2
import h5py
import numpy as np
import pandas as pd
import scipy.io

from mmnfn.nsd.release import BETA_VERSIONS, TRIALS_PER_SESSION, NSDLayout
from mmnfn.utils import atomic_write, listed, name_full_disk, progress_bar

from .cortex import make_anatomy
from .design import Design, behaviour_table, make_design, stimulus_table
from .downstream import CocoWriter, write_ade_split, write_coco_split
from .nsd_writer import TABLES_BYTES, write_anatomy, write_betas, write_prf
from .photographs import Photographs
from .scenes import Scene, render_scene
from .tuning import image_features, make_tuning, scale_features


class WorldConfig(NamedTuple):
    """Describe a world; equal values give identical files.

    Attributes:
        subjects: Number of subjects (subj01, …), at most 8.
        sessions: Sessions of each subject; fewer values than subjects repeat the last one.
        seed: Seed of everything.
        voxel_mm: Edge of a voxel; NSD's 1.8 makes session files of 1.1 GB.
        shared_fraction: Share of a subject's images that all subjects see; 0.1 in NSD.
        stimulus_size: Side of the images in ``imgBrick``; 425 in NSD.
        snr: Signal to noise of every voxel, in multiples of NSD's; 100 is as good as no noise.
        beta_version: Version folder to write.
        nifti: Also write betas as ``.nii.gz``.
        downstream: Images for (COCO train, COCO val, ADE20K training, ADE20K validation).
        downstream_size: Side of the downstream images.
        images, annotations: Folder of photographs to use instead of drawn scenes, and their COCO instances file.
        workers: Processes that draw.
    """

    subjects: int = 4
    sessions: Tuple[int, ...] = (2,)
    seed: int = 0
    voxel_mm: float = 4.0
    shared_fraction: float = 0.1
    stimulus_size: int = 425
    snr: float = 1.0
    beta_version: str = 'b3'
    nifti: bool = False
    downstream: Tuple[int, int, int, int] = (0, 0, 0, 0)
    downstream_size: int = 256
    images: Optional[Path] = None
    annotations: Optional[Path] = None
    workers: int = 2

    def check(self) -> WorldConfig:
        """Return a copy with ``sessions`` as a tuple; ValueError for an argument out of range."""
        self = self._replace(sessions=tuple(listed(self.sessions)))
        for name, low, high in (
            ('subjects', 1, 8),
            ('voxel_mm', 1.5, 8),
            ('shared_fraction', 0.01, 0.9),
            ('stimulus_size', 32, 1024),
            ('snr', 0.01, 1000),
            ('downstream_size', 32, 1024),
            ('workers', 1, 256),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f'{name} is {value}; it must lie between {low} and {high}.')
        if not self.sessions or min(self.sessions) < 1 or max(self.sessions) > 40:
            raise ValueError(f'sessions is {self.sessions}; each subject has between 1 and 40.')
        if len(self.sessions) > self.subjects:
            raise ValueError(f'sessions gives {len(self.sessions)} values for {self.subjects} subjects.')
        if self.seed < 0:
            raise ValueError(f'seed is {self.seed}; it cannot be negative.')
        if min(self.downstream) < 0:
            raise ValueError(f'downstream is {self.downstream}; counts cannot be negative.')
        if self.beta_version not in BETA_VERSIONS:
            raise ValueError(f'beta_version is {self.beta_version!r}; it must be one of {", ".join(BETA_VERSIONS)}.')
        if (self.images is None) != (self.annotations is None):
            raise ValueError('images and annotations belong together: give both, or neither.')
        return self

    def sessions_of(self, index: int) -> int:
        """Return the number of sessions of the subject with this 0-based index."""
        return self.sessions[min(index, len(self.sessions) - 1)]


class SceneSource:
    """Draw the scenes of a stream; picklable, so that worker processes can draw them."""

    def __init__(self, seed: int, stream: int, size: int, crops=None, photographs: Optional[Photographs] = None):
        self.seed, self.stream, self.size = seed, stream, size
        self.crops, self.photographs = crops, photographs

    def scene(self, index: int) -> Scene:
        """Draw a scene, or cut a photograph."""
        cv2.setNumThreads(1)
        if self.photographs is not None:
            return self.photographs.scene(*self.crops[index], self.size)
        return render_scene(np.random.default_rng([self.seed, self.stream, index]), self.size)

    def stimulus(self, index: int) -> Tuple[Scene, np.ndarray]:
        """Draw a scene and compute the features that drive the voxels."""
        scene = self.scene(index)
        return scene, image_features(scene.image, scene.semantic)


def drawing_processes(workers: int) -> ContextManager[Optional[ProcessPoolExecutor]]:
    """Start the processes that draw; None if this process draws itself."""
    if workers == 1:
        return nullcontext()
    # A fork of a process whose libraries have started threads can hang.
    return ProcessPoolExecutor(workers, mp_context=get_context('spawn'))


def draw(function: Callable, count: int, pool: Optional[ProcessPoolExecutor], title: str) -> Iterator:
    """Yield ``function(0) … function(count − 1)`` in order, with a progress bar."""
    with progress_bar(total=count, desc=title, unit='image') as bar:
        for start in range(0, count, 256):  # not too far ahead of the writer
            part = range(start, min(start + 256, count))
            for result in map(function, part) if pool is None else pool.map(function, part, chunksize=8):
                yield result
                bar.update()


def _write_stimuli(
    layout: NSDLayout, coco_dir: Path, design: Design, config: WorldConfig, pool: Optional[ProcessPoolExecutor]
) -> np.ndarray:
    """Write all stimuli, and return their features (stimuli, NUM_CHANNELS, 16, 16)."""
    rng = np.random.default_rng([config.seed, 2])
    count, size = design.num_stimuli, config.stimulus_size
    photographs = Photographs(config.images, config.annotations) if config.images is not None else None
    if photographs is None:
        crops = [(1_000_001 + i, (0.0, 0.0, 0.0, 0.0)) for i in range(count)]
    else:
        crops = photographs.crops(np.isin(np.arange(count), design.sharedix - 1), rng)
    split = np.where(rng.random(count) < 0.05, 'val2017', 'train2017')
    if photographs is not None:  # all are of the split of their annotations
        split[:] = 'val2017' if 'val2017' in Path(config.annotations).name else 'train2017'
    source = pd.DataFrame(
        dict(
            cocoId=[c[0] for c in crops],
            cocoSplit=split,
            cropBox=[str(tuple(round(b, 6) for b in c[1])) for c in crops],
            loss=rng.uniform(0, 0.3, count).round(6),
        )
    )
    layout.stim_info_file.parent.mkdir(parents=True, exist_ok=True)
    stimulus_table(design, source).to_csv(layout.stim_info_file)
    layout.stimuli_file.parent.mkdir(parents=True, exist_ok=True)
    writers = {name: CocoWriter(coco_dir / 'annotations', name) for name in ('train2017', 'val2017')}
    features = []
    drawer = SceneSource(config.seed, 3, size, crops, photographs).stimulus
    stimuli = atomic_write(layout.stimuli_file, count * size * size * 3 + TABLES_BYTES)
    with stimuli as temporary, h5py.File(temporary, 'w', libver='earliest') as file:
        bricks = file.create_dataset('imgBrick', (count, size, size, 3), np.uint8, chunks=(1, size, size, 3))
        for index, (scene, feature) in enumerate(draw(drawer, count, pool, 'stimuli')):
            bricks[index] = scene.image
            features.append(feature)
            if photographs is None:
                writers[split[index]].add(scene, crops[index][0])
    if photographs is None:
        for writer in writers.values():
            writer.close()
    return scale_features(np.stack(features))


def _write_design(layout: NSDLayout, design: Design) -> None:
    layout.design_file.parent.mkdir(parents=True, exist_ok=True)
    with open(layout.design_file, 'wb') as file:
        scipy.io.savemat(
            file,
            dict(
                masterordering=design.masterordering[None].astype(np.uint16),
                subjectim=design.subjectim.astype(np.int32),
                sharedix=design.sharedix[None].astype(np.int32),
                stimpattern=design.stimpattern,
            ),
        )
        file.seek(0)
        file.write(b'MATLAB 5.0 MAT-file, mmnfn simulated design'.ljust(116))  # savemat puts the time there


def _write_subject(
    layout: NSDLayout, truth: h5py.File, index: int, design: Design, features: np.ndarray, config: WorldConfig
) -> None:
    subject, sessions = f'subj{index + 1:02d}', config.sessions_of(index)
    rng = np.random.default_rng([config.seed, 4, index])
    anatomy = make_anatomy(index + 1, config.voxel_mm, rng)
    tuning = make_tuning(anatomy, config.seed, rng)
    tuning = tuning._replace(ncsnr=tuning.ncsnr * config.snr)
    write_anatomy(layout, subject, anatomy)
    write_prf(layout, subject, anatomy, tuning)
    trials = design.trial_ids(index)[: sessions * TRIALS_PER_SESSION]
    images, rows = np.unique(trials, return_inverse=True)
    signal = tuning.responses(features[images])
    plan = write_betas(layout, subject, anatomy, tuning, signal, rows, rng, config.nifti)
    behaviour = layout.responses_file(subject)
    behaviour.parent.mkdir(parents=True, exist_ok=True)
    behaviour_table(design, index, sessions).to_csv(behaviour, sep='\t', index=False)

    group = truth.create_group(subject)
    group['responses'] = signal
    group['image_id'] = images
    group['voxel'] = np.stack(np.nonzero(anatomy.visual), -1).astype(np.int16)
    group['ncsnr'] = tuning.ncsnr
    for repeats in (1, 3):
        group[f'noise_ceiling_n{repeats}'] = 100 * tuning.ncsnr**2 / (tuning.ncsnr**2 + 1 / repeats)
    group['field'], group['weights'], group['exponent'] = tuning.field, tuning.weights, tuning.exponent
    group['mean'], group['deviation'] = plan.mean, plan.std
    group['offset'], group['gain'], group['invalid'] = plan.offset, plan.gain, plan.invalid


def simulate(out: Path, config: WorldConfig, overwrite: bool = False) -> None:
    """Write a simulated world.

    ``out/nsd`` is the NSD tree, ``out/coco_stimuli`` has the COCO annotations of its images, and ``out/coco`` and
    ``out/ADEChallengeData2016`` have other scenes for the downstream tasks. ``out/truth.h5`` holds the truth behind
    the data: per subject the noise-free ``responses`` (images, voxels), z-scored over images, ``ncsnr``, noise ceilings
    in percent of variance for single trials (``n1``) and means of three (``n3``), tuning and drift. Everything is
    written into a temporary folder beside ``out``, which is renamed when complete and removed after an error.

    Args:
        out: Folder to make.
        config: The world.
        overwrite: Replace ``out`` where it exists.

    Raises:
        FileExistsError: If ``out`` exists and is not to be replaced.
        ValueError: If an argument is out of range.
        OSError: If the disk is full.
    """
    config = config.check()
    out = Path(out).resolve()  # a link then points to the new world
    if out.exists() and not overwrite:
        raise FileExistsError(f'{out} exists. Give another folder, or --overwrite to replace it.')
    part, old = out.with_name(out.name + '.part'), out.with_name(f'.{out.name}.replaced')
    for left in (part, old):  # of a call that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        with name_full_disk(out):
            _write_world(part, config)
            if out.exists():
                out.rename(old)
            part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _write_world(part: Path, config: WorldConfig) -> None:
    """Write the world into a folder."""
    (part / 'nsd/nsddata').mkdir(parents=True)
    layout = NSDLayout(part / 'nsd', config.beta_version)
    design = make_design(
        config.subjects, max(config.sessions), config.shared_fraction, np.random.default_rng([config.seed, 1])
    )
    _write_design(layout, design)
    with drawing_processes(config.workers) as pool:
        features = _write_stimuli(layout, part / 'coco_stimuli', design, config, pool)
        _write_downstream(part, config, pool)
    with h5py.File(part / 'truth.h5', 'w', libver='earliest') as truth:
        truth.attrs['seed'] = config.seed
        truth.attrs['note'] = 'noise ceilings are percent of variance; ids are 0-based'
        for index in range(config.subjects):
            _write_subject(layout, truth, index, design, features, config)


def _write_downstream(part: Path, config: WorldConfig, pool: Optional[ProcessPoolExecutor]) -> None:
    """Write other scenes than the stimuli, as COCO and as ADE20K."""
    writers = [
        (write_coco_split, part / 'coco', 'train2017'),
        (write_coco_split, part / 'coco', 'val2017'),
        (write_ade_split, part / 'ADEChallengeData2016', 'training'),
        (write_ade_split, part / 'ADEChallengeData2016', 'validation'),
    ]
    for stream, (count, (write, root, split)) in enumerate(zip(config.downstream, writers), 5):
        if count:
            drawer = SceneSource(config.seed, stream, config.downstream_size).scene
            scenes = draw(drawer, count, pool, f'{root.name} {split}')
            write(root, split, scenes, *([stream * 10_000_001] if write is write_coco_split else []))


def describe(out: Path) -> List[str]:
    """Describe a simulated world in a few lines."""
    lines = []
    with h5py.File(Path(out) / 'truth.h5') as truth:
        for subject in sorted(truth):
            images, voxels = truth[subject]['responses'].shape
            ceiling = float(np.median(truth[subject]['noise_ceiling_n3'][()]))
            lines.append(
                f'{subject}: {images} images, {voxels} visual voxels, median noise ceiling (n=3) {ceiling:.0f}%'
            )
    return lines
