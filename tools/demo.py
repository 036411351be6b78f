"""Run the whole chain on a simulated world: simulate, prepare, then the study of studies/demo.yml.

Example:
    python tools/demo.py
Everything is written into data/sim and work_dirs/demo; about 15 minutes on two cores. A demo that was interrupted goes
on, one that had ended begins anew in the same world.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmnfn.experiments import read_study, runner
from mmnfn.nsd.store import FORMAT_VERSION
from mmnfn.utils import atomic_write
from mmnfn.visualization.demo_figure import METRICS, ROWS, draw_demo_figure, summarize, unmet_expectations

ROOT = Path(__file__).resolve().parents[1]
DATA = Path('data/sim')
OUT = Path('work_dirs/demo')
WORLD = dict(subjects=4, sessions=3, seed=1, voxel_mm=3.5, stimulus_size=212, downstream='400 100 300 80')


def simulate(console):
    """Make data and stores, or use those of an earlier run; seconds of each command."""
    marker, seconds = DATA / 'demo.json', {}
    description = dict(WORLD, store_format=FORMAT_VERSION)
    if marker.is_file() and json.loads(marker.read_text('utf-8')) == description:
        console.print(f'Using the simulated world in {DATA}.')
        return seconds
    shutil.rmtree(OUT, ignore_errors=True)
    world = [part for name, value in WORLD.items() for part in ('--' + name.replace('_', '-'), *str(value).split())]
    commands = dict(
        simulate=['tools/simulate_nsd.py', DATA, '--overwrite', *world],
        prepare=['tools/prepare_nsd.py', DATA / 'nsd', DATA / 'store', '--image-size', 64],
    )
    for name, command in commands.items():
        begin = time.monotonic()
        process = subprocess.Popen([sys.executable, *map(str, command)])
        while process.poll() is None:
            console.print(f'{name} …')
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        seconds[name] = round(time.monotonic() - begin, 1)
        console.print(f'{name} done in {seconds[name]:.0f} s')
    with atomic_write(marker) as temporary:
        temporary.write_text(json.dumps(description), 'utf-8')
    return seconds


def print_summary(summary, console):
    """Print the table, retrieval, and what was not as expected."""
    table = Table(title='Simulated world, micro Swin, one run each: what guidance by simulated brains was worth')
    for column in ('', *ROWS):
        table.add_column(column, justify='right' if column else 'left')
    pcc, error = summary['pcc'], summary['pcc_standard_error']
    table.add_row('PCC, held-out subject (raw r ± s.e.)', *(f'{pcc[row]:.3f} ± {error[row]:.3f}' for row in ROWS))
    table.add_row('PCC / noise ceiling', *(f'{summary["pcc_normalized"][row]:.3f}' for row in ROWS))
    for name in METRICS:
        table.add_row(f'{name} (%)', *(f'{summary[name][row]:.1f}' for row in ROWS))
    console.print(table)
    top1, chance = summary['retrieval_top1'], summary['retrieval_chance']
    console.print(
        f'Image→brain retrieval on held-out images: top-1 {top1:.3f}, chance {chance:.4f} ({top1 / chance:.0f}x).'
    )
    for line in unmet_expectations(summary):
        console.print(f'Not as expected: {line}.')


def main(argv=None):
    """Run the demo; returns the exit code."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    os.chdir(ROOT)
    # Also where there are GPUs: one may not be enough for two processes, and metrics and minutes are those of CPUs.
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    console, begin = Console(soft_wrap=True, highlight=False), time.monotonic()
    try:
        seconds = simulate(console)
        study = read_study('studies/demo.yml', ROOT, OUT)
        if all(job.state() in ('done', 'stale') for job in study.jobs):
            shutil.rmtree(OUT)
        states = runner.run_locally(study, study.jobs, console, workers=2, redo=True)
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 130
    if set(states.values()) != {'done'}:
        return 1
    summary = summarize(study, seconds)
    with atomic_write(OUT / 'summary.json') as temporary:
        temporary.write_text(json.dumps(summary, indent=2), 'utf-8')
    draw_demo_figure(OUT / 'demo.png', summary, OUT / 'swin-micro/nfn/seed0/pretrain', DATA)
    print_summary(summary, console)
    minutes = (time.monotonic() - begin) / 60
    console.print(f'{minutes:.1f} minutes. Metrics: {OUT}/summary.json, figure: {OUT}/demo.png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
