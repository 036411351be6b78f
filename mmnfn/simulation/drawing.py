"""Drawing scenes one after another, by several processes."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from typing import Callable, ContextManager, Iterator, Optional, Tuple

import cv2
import numpy as np

from mmnfn.utils import progress_bar

from .photographs import Photographs
from .scenes import Scene, render_scene
from .tuning import picture_features


class SceneSource:
    """Makes scene ``index`` of a stream; picklable, so that worker processes can draw."""

    def __init__(self, seed: int, stream: int, size: int, crops=None, photographs: Optional[Photographs] = None):
        self.seed, self.stream, self.size = seed, stream, size
        self.crops, self.photographs = crops, photographs

    def scene(self, index: int) -> Scene:
        cv2.setNumThreads(1)
        if self.photographs is not None:
            return self.photographs.scene(*self.crops[index], self.size)
        return render_scene(np.random.default_rng([self.seed, self.stream, index]), self.size)

    def stimulus(self, index: int) -> Tuple[Scene, np.ndarray]:
        scene = self.scene(index)
        return scene, picture_features(scene.image, scene.semantic)


def drawing_processes(workers: int) -> ContextManager[Optional[ProcessPoolExecutor]]:
    """Processes that draw; None if this process is to draw itself."""
    if workers == 1:
        return nullcontext()
    # spawn: a fork of a process whose libraries have started threads can hang
    return ProcessPoolExecutor(workers, mp_context=get_context('spawn'))


def draw(function: Callable, count: int, pool: Optional[ProcessPoolExecutor], title: str) -> Iterator:
    """``function(0) … function(count − 1)`` in order, with a progress bar."""
    with progress_bar(total=count, desc=title, unit='picture') as bar:
        for start in range(0, count, 256):  # not too far ahead of the writer
            part = range(start, min(start + 256, count))
            for result in map(function, part) if pool is None else pool.map(function, part, chunksize=8):
                yield result
                bar.update()
