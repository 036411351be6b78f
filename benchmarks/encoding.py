"""Measure the cost of the encoding model against scikit-learn's RidgeCV on the same problem.

Images, features and voxels of one subject, all scaled down by ``--scale``; 15 candidates for the regularisation, chosen
per voxel. Baseline in this process: ``sklearn.linear_model.RidgeCV(alpha_per_target=True)``, leave-one-out. Two
threads. ``--peak`` instead fits 10,000 images × 45,000 voxels once and prints the peak memory of that process, which
includes responses and predictions.

Example:
    python benchmarks/encoding.py --json encoding.json
"""

import argparse
import json
import time

import numpy as np
from measure import in_own_process, peak_memory, read_arguments, save
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from mmnfn.evaluation import fit_encoding_model
from mmnfn.evaluation.ridge import ALPHAS

IMAGES, FEATURES, VOXELS, TEST = 10_000, 23_040, 45_000, 1_000
"""Of an NSD subject, with four maps of Swin-S pooled to 4 × 4 cells."""


def problem(images: int, features: int, voxels: int, test: int):
    """Make training and test arrays, float32; half of a voxel's variance can be explained."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images + test, features), dtype=np.float32)
    weights = rng.standard_normal((features, voxels), dtype=np.float32) / np.sqrt(features)
    y = x @ weights
    for start in range(0, len(y), 500):
        y[start : start + 500] += rng.standard_normal(y[start : start + 500].shape, dtype=np.float32)
    return x[:images], y[:images], x[images:], y[images:]


def seconds(function) -> float:
    """Measure a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Run everything and print it."""
    args = read_arguments(
        __doc__,
        ('--scale', dict(type=float, default=0.2, help='of images, features and voxels (default: %(default)s)')),
        ('--peak', dict(action='store_true', help='memory at full size instead; takes some minutes')),
        ('--memory', dict(nargs=4, type=int, help=argparse.SUPPRESS)),
        threads=True,
    )
    with threadpool_limits(2):
        if args.memory:
            arrays = problem(*args.memory)
            before = peak_memory()
            fit_encoding_model(*arrays)
            print(json.dumps([before, peak_memory()]))
            return
        if args.peak:
            sizes = (IMAGES, 4096, VOXELS, TEST)  # the kernel is as large with more features
            before, peak = in_own_process(__file__, ['--memory', *sizes])
            print(f'{sizes[0]} images x {sizes[2]} voxels: data {before:.0f} MB, peak {peak:.0f} MB')
            return
        sizes = [int(args.scale * n) for n in (IMAGES, FEATURES, VOXELS, TEST)]
        x, y, x_test, y_test = problem(*sizes)
        ours = min(seconds(lambda: fit_encoding_model(x, y, x_test, y_test, bootstraps=2)) for _ in range(2))
        mean, std = x.mean(0), x.std(0)
        model = RidgeCV(alphas=ALPHAS, alpha_per_target=True)
        theirs = seconds(lambda: model.fit((x - mean) / std, y).predict((x_test - mean) / std))
    print(
        f'{sizes[0]} images, {sizes[1]} features, {sizes[2]} voxels: ours {ours:.1f} s, scikit-learn {theirs:.1f} s; '
        f'{theirs / ours:.1f} times as fast'
    )
    save(args, dict(speedup_vs_sklearn=theirs / ours))


if __name__ == '__main__':
    main()
