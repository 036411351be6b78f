"""What does the encoding model cost, next to scikit-learn's RidgeCV on the same problem?

Images, features and voxels of one subject, made small in all three by ``--scale``; 15 candidates for the
regularisation, chosen per voxel. Baseline in this process: ``sklearn.linear_model.RidgeCV(alpha_per_target=True)``,
leave-one-out. Two threads. ``--peak`` instead fits 10,000 images × 45,000 voxels once and prints the peak
memory of that process, of which responses and predictions are a part.

Example:
    python benchmarks/encoding.py --json encoding.json
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from measure import in_own_process, keep_large_blocks, peak_memory
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

from mmnfn.evaluation import fit_encoding_model
from mmnfn.evaluation.ridge import ALPHAS

IMAGES, FEATURES, VOXELS, TEST = 10_000, 23_040, 45_000, 1_000
"""A subject of NSD, and four maps of Swin-S pooled to 4 × 4 cells."""


def problem(images: int, features: int, voxels: int, test: int):
    """Training and test arrays, float32: half of the variance of a voxel can be explained."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images + test, features), dtype=np.float32)
    weights = rng.standard_normal((features, voxels), dtype=np.float32) / np.sqrt(features)
    y = x @ weights
    for start in range(0, len(y), 500):
        y[start : start + 500] += rng.standard_normal(y[start : start + 500].shape, dtype=np.float32)
    return x[:images], y[:images], x[images:], y[images:]


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, help='write the ratios there')
    parser.add_argument('--scale', type=float, default=0.2, help='of images, features and voxels; default 0.2')
    parser.add_argument('--peak', action='store_true', help='memory at full size instead; takes some minutes')
    parser.add_argument('--memory', nargs=4, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_large_blocks()
    torch.set_num_threads(2)
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
        mean, deviation = x.mean(0), x.std(0)
        model = RidgeCV(alphas=ALPHAS, alpha_per_target=True)
        theirs = seconds(lambda: model.fit((x - mean) / deviation, y).predict((x_test - mean) / deviation))
    ratios = dict(speedup_vs_sklearn=theirs / ours)
    print(
        f'{sizes[0]} images, {sizes[1]} features, {sizes[2]} voxels: ours {ours:.1f} s, scikit-learn {theirs:.1f} s; '
        f'{ratios["speedup_vs_sklearn"]:.1f} times as fast'
    )
    if args.json:
        args.json.write_text(json.dumps(ratios, indent=2))


if __name__ == '__main__':
    main()
