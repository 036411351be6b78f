"""The whole chain on a simulated world: simulate, prepare, pretrain, detect, segment, encode.

Example:
    python tools/demo.py
Everything is written into data/sim and work_dirs/demo; about 11 minutes on two cores.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmnfn.engine.launch import child_environment
from mmnfn.nsd.store import FORMAT_VERSION
from mmnfn.utils import atomic_write
from mmnfn.visualization.demo_figure import draw_demo_figure
from mmnfn.visualization.demo_summary import INITS, print_summary, summarize

ROOT = Path(__file__).resolve().parents[1]
DATA = Path('data/sim')
OUT = Path('work_dirs/demo')
WORLD = dict(subjects=4, sessions=3, seed=1, voxel_mm=3.5, stimulus_size=212, downstream='400 100 300 80')
STEP = re.compile(r'(?:Epoch|Iter)\((?:train|test|val)\)\s*(?:\[\s*(\d+)\])?\[\s*(\d+)/(\d+)\]')


class Failed(RuntimeError):
    """A command of the chain failed."""


class Chain:
    """Runs the commands of the demo with progress bars; their output goes into log files.

    Args:
        console: Where to report. Bars appear on a terminal only; elsewhere a line is printed per finished command.
    """

    def __init__(self, console: Console):
        self.console = console
        self.seconds: Dict[str, float] = {}
        (OUT / 'logs').mkdir(parents=True, exist_ok=True)
        self.progress = Progress(
            TextColumn('{task.description:<34}'),
            BarColumn(),
            TextColumn('{task.percentage:>3.0f}%'),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def run(self, title: str, command: Sequence, epochs: int = 1, processes: int = 1) -> None:
        """Run one command to its end.

        Args:
            title: Name on the screen and of the log file.
            command: What to run, from the root of the repository.
            epochs: Epochs that it trains, for the bar.
            processes: Processes it starts itself; one that starts none gets one thread, so that two fit on two cores.

        Raises:
            Failed: If it exits with an error, with the end of its output.
        """
        log = OUT / 'logs' / f'{title.replace(" ", "_")}.log'
        # Also where there are GPUs: one may not be enough for two processes, and figures and minutes are those of CPUs.
        variables = dict(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED='1', MMNFN_PROGRESS='1', CUDA_VISIBLE_DEVICES='')
        env = child_environment(variables)
        if processes == 1:
            env['OMP_NUM_THREADS'] = '1'
        start = time.monotonic()
        task = self.progress.add_task(title, total=100)
        with open(log, 'w', buffering=1, encoding='utf-8') as file:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=env,
                encoding='utf-8',
                errors='replace',
            )
            for line in process.stdout:
                file.write(line)
                done = STEP.search(line)
                percent = re.search(r'(\d+)%\|', line)
                if done:
                    epoch, step, steps = int(done.group(1) or 1), int(done.group(2)), int(done.group(3))
                    self.progress.update(task, completed=100 * min(1, (epoch - 1 + step / steps) / epochs))
                elif percent:
                    self.progress.update(task, completed=int(percent.group(1)))
            code = process.wait()
        self.seconds[title] = time.monotonic() - start
        if code:
            lines = log.read_text('utf-8', 'replace').splitlines()
            named = [line for line in lines[:-15] if re.match(r'\w+\.(py|sh): error: ', line)]  # above torchrun's own
            tail = '\n'.join([*named[:1], *lines[-15:]])
            raise Failed(f'{title}: exit code {code}. The end of {log}:\n{tail}')
        self.progress.update(task, completed=100)
        self.progress.stop_task(task)
        if not self.console.is_terminal:
            self.console.print(f'{title}: {self.seconds[title]:.0f} s')


def two_at_a_time(calls: Sequence[Callable[[], None]]) -> None:
    """Make the calls on two threads, in this order; after an error of one no more are begun, and it is raised."""
    failed = threading.Event()

    def make(call: Callable[[], None]) -> None:
        if not failed.is_set():
            try:
                call()
            except BaseException:
                failed.set()
                raise

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(make, call) for call in calls]
    for future in futures:
        future.result()


def simulate(chain: Chain) -> None:
    """Make data and stores, or use those of an earlier run."""
    marker = DATA / 'demo.json'
    description = dict(WORLD, store_format=FORMAT_VERSION)
    if marker.is_file() and json.loads(marker.read_text('utf-8')) == description:
        chain.console.print(f'Using the simulated world in {DATA}.')
        return
    command = [sys.executable, 'tools/simulate_nsd.py', DATA, '--overwrite']
    for name, value in WORLD.items():
        command += ['--' + name.replace('_', '-'), *str(value).split()]
    chain.run('simulate', command, processes=2)
    chain.run('prepare', [sys.executable, 'tools/prepare_nsd.py', DATA / 'nsd', DATA / 'store', '--image-size', 64])
    with atomic_write(marker) as temporary:
        Path(temporary).write_text(json.dumps(description), encoding='utf-8')


def random_weights(chain: Chain) -> None:
    """Random weights as a checkpoint of the same form as the trained ones."""
    chain.run(
        'random weights',
        [
            sys.executable,
            'tools/model_converters/export_backbone.py',
            '--random',
            'configs/demo/pretrain.py',
            OUT / 'random/backbone_latest.pth',
        ],
    )


def pretrain(chain: Chain, epochs: int) -> None:
    """Brain-guided, with right pairs and with shuffled ones."""
    runs = (('nfn', []), ('shuffled', ['--cfg-options', 'train_dataloader.dataset.shuffle_pairs=0']))

    def train(name: str, options: List[str]) -> None:
        chain.run(
            f'pretrain {name}',
            ['bash', 'tools/dist_train.sh', 'configs/demo/pretrain.py', 2, '--work-dir', OUT / name, *options],
            epochs,
            processes=2,
        )

    # one waits while the other computes: together they take a tenth less
    two_at_a_time([partial(train, *run) for run in runs])


def transfer_jobs(init: str) -> List[List[tuple]]:
    """Sequences of (title, command) for one initialisation; the sequences do not depend on each other."""
    backbone = OUT / init / 'backbone_latest.pth'

    def train_and_test(task: str, config: str) -> List[tuple]:
        work_dir = OUT / init / task
        train = [
            sys.executable,
            'tools/train.py',
            config,
            '--work-dir',
            work_dir,
            '--cfg-options',
            f'model.backbone.init_cfg.checkpoint={backbone}',
        ]
        test = [
            'bash',
            '-c',
            f'"{sys.executable}" tools/test.py {config} "$(cat {work_dir}/last_checkpoint)" --work-dir '
            f'{work_dir}/test --out {work_dir}/metrics.json',
        ]
        return [(f'{task} {init} train', train), (f'{task} {init} test', test)]

    encoding = [
        sys.executable,
        'tools/test.py',
        'configs/demo/encoding.py',
        backbone,
        '--work-dir',
        OUT / init / 'encoding',
        '--out',
        OUT / init / 'encoding/metrics.json',
    ]
    return [
        train_and_test('detect', 'configs/demo/mask-rcnn_micro_fpn_demo.py'),
        train_and_test('segment', 'configs/demo/upernet_micro_demo.py'),
        [(f'encode {init}', encoding)],
    ]


def retrieval(chain: Chain) -> None:
    """Image-brain retrieval on the test images of the training subjects; the predictions are kept for the figure."""
    checkpoint = (OUT / 'nfn/last_checkpoint').read_text('utf-8').strip()
    chain.run(
        'retrieval',
        [
            sys.executable,
            'tools/test.py',
            'configs/demo/pretrain.py',
            checkpoint,
            '--work-dir',
            OUT / 'nfn/retrieval',
            '--out',
            OUT / 'nfn/retrieval/metrics.json',
            '--dump',
            OUT / 'nfn/retrieval/predictions.pkl',
        ],
    )


def transfer(chain: Chain, inits: Sequence[str]) -> None:
    """Detection, segmentation and encoding, and retrieval by the brain-guided model."""

    def run_all(jobs: List[tuple]) -> None:
        for title, command in jobs:
            chain.run(title, command)

    sequences = [jobs for init in inits for jobs in transfer_jobs(init)]
    sequences.sort(key=len, reverse=True)
    two_at_a_time([partial(run_all, jobs) for jobs in sequences] + [partial(retrieval, chain)])


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    os.chdir(ROOT)
    console = Console()
    start = time.monotonic()
    chain = Chain(console)
    try:
        with chain.progress:
            two_at_a_time([partial(simulate, chain), partial(random_weights, chain)])
            pretrain(chain, epochs=6)
            transfer(chain, INITS)
    except Failed as error:
        console.print(str(error), markup=False, style='red')
        return 1
    except KeyboardInterrupt:
        return 130
    summary = summarize(OUT, chain.seconds)
    with atomic_write(OUT / 'summary.json') as temporary:
        Path(temporary).write_text(json.dumps(summary, indent=2), encoding='utf-8')
    draw_demo_figure(
        OUT / 'demo.png',
        summary,
        'configs/demo/pretrain.py',
        (OUT / 'nfn/last_checkpoint').read_text('utf-8').strip(),
        OUT / 'nfn/retrieval/predictions.pkl',
        DATA / 'store/images_64.h5',
    )
    print_summary(summary, console)
    console.print(
        f'{(time.monotonic() - start) / 60:.1f} minutes. Figures: {OUT}/summary.json, picture: {OUT}/demo.png'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
