"""Arguments, times and memory, for the benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Sequence

import numpy as np
import torch


def read_arguments(description: str, *more: tuple, threads: bool = False) -> argparse.Namespace:
    """Read a benchmark's arguments, and describe the machine unless this process only measures memory.

    Args:
        description: Docstring of the benchmark.
        more: Name and settings of each further argument; a hidden ``--memory`` measures in a process of its own.
        threads: Work with two threads, and with large memory blocks kept.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, help='write the ratios there')
    for name, settings in more:
        parser.add_argument(name, **settings)
    args = parser.parse_args()
    if threads:
        keep_large_blocks()
        torch.set_num_threads(2)
    if not getattr(args, 'memory', None):
        print(
            f'{platform.machine()}, {platform.system()}, torch {torch.__version__}, {torch.get_num_threads()} threads'
        )
    return args


def save(args: argparse.Namespace, ratios: dict) -> None:
    """Write the ratios if the arguments ask for it."""
    if args.json:
        args.json.write_text(json.dumps(ratios, indent=2))


def keep_large_blocks() -> None:
    """Restart this process with glibc set to keep large blocks instead of giving them back at each free."""
    settings = dict(MALLOC_MMAP_THRESHOLD_='4294967296', MALLOC_TRIM_THRESHOLD_='8589934592')
    if any(os.environ.get(name) != value for name, value in settings.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})


def times_in_turns(steps: Dict[str, Callable[[], None]], repeats: int = 3) -> Dict[str, float]:
    """Measure the fastest of several calls of each step, in seconds.

    The steps take turns, so that a change of the machine's load affects all of them. The first turn is a warm-up.
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
    """Read the peak memory of this process in MB (Linux; ``ru_maxrss`` would include its parent's)."""
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s*(\d+) kB', status).group(1)) / 1024


def peak_of_step(step: Callable[[], None]) -> float:
    """Measure the growth of this process's peak memory in a step, in MB; call it in a process of its own."""
    before = peak_memory()
    step()
    return peak_memory() - before


def in_own_process(script: str, arguments: Sequence) -> float:
    """Run a benchmark's script with some arguments, and return the JSON value that it prints last."""
    command = [sys.executable, script, *map(str, arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit the slope of a straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
