"""Time and memory of training steps, for the benchmarks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Sequence

import numpy as np


def keep_large_blocks() -> None:
    """Start this process anew with glibc told to keep large blocks instead of giving them back at each free."""
    settings = dict(MALLOC_MMAP_THRESHOLD_='4294967296', MALLOC_TRIM_THRESHOLD_='8589934592')
    if any(os.environ.get(name) != value for name, value in settings.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})


def times_in_turns(steps: Dict[str, Callable[[], None]], repeats: int = 3) -> Dict[str, float]:
    """Seconds of the fastest of some calls of each step; the steps take turns, so that a change of the machine's load
    meets all of them. The first turn warms up and does not count.
    """
    seconds: Dict[str, list] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in seconds.items()}


def peak_memory() -> float:
    """Largest memory of this process so far, in MB (Linux; ``ru_maxrss`` would count its parent's)."""
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s*(\d+) kB', status).group(1)) / 1024


def peak_of_step(step: Callable[[], None]) -> float:
    """Growth of this process's peak memory while it takes a step, in MB; call it in a process of its own."""
    before = peak_memory()
    step()
    return peak_memory() - before


def in_own_process(script: str, arguments: Sequence) -> float:
    """Run a benchmark's own script with some arguments, and return the JSON number that it prints last."""
    command = [sys.executable, script, *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of a straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
