"""Run a study: pretrain, transfer and test for every row and seed. What is done is skipped, what was killed goes on.

Example:
    python tools/experiments/run.py studies/tables_1-2_micro.yml --jobs 2
    python tools/experiments/run.py studies/tables_1-2.yml --launcher slurm
    python tools/experiments/run.py studies/tables_1-2.yml --launcher print > commands.sh
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console

from mmnfn.engine.run_config import report_error
from mmnfn.experiments import launch, read_study, slurm
from mmnfn.experiments.outcome import read_results

ROOT = Path(__file__).resolve().parents[2]


def parse_args(argv=None):
    """Command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', metavar='STUDY.yml', help='the study; the shipped ones are in studies/')
    parser.add_argument('--work-dir', help="folder of all jobs; default the study's own")
    parser.add_argument(
        '--launcher',
        choices=('local', 'slurm', 'print'),
        default='local',
        help='here, through Slurm (submitit), or as commands on the terminal',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        metavar='N',
        help='jobs at a time here; they share cores and GPUs',
    )
    parser.add_argument('--only', default='', metavar='TEXT', help='jobs with TEXT in their name, and what they need')
    parser.add_argument(
        '--results',
        metavar='FILE',
        help='results.json of a report: what it holds is not run again, unless another job needs its files',
    )
    parser.add_argument('--status', action='store_true', help='say what is done, and run nothing')
    parser.add_argument('--redo', action='store_true', help='run jobs anew that were done with other settings')
    return parser.parse_args(argv)


def main(argv=None):
    """Run; returns the exit code: 0 if all jobs are done (or submitted), 1 if some are not, 2 for wrong input."""
    args = parse_args(argv)
    console = Console(soft_wrap=True)
    try:
        if args.jobs < 1:
            raise ValueError(f'--jobs must be at least 1, but is {args.jobs}.')
        study = read_study(args.study, ROOT, args.work_dir)
        jobs = launch.select(study, args.only)
        kept = read_results(args.results) if args.results else {}
        if args.status:
            states = {job.name: job.state() for job in jobs}
            for job in jobs:
                if states[job.name] != 'done' and launch.is_kept(job, kept):
                    states[job.name] = 'kept'
            for name, state in states.items():
                console.print(f'{state:12} {name}', highlight=False)
            counts = Counter(states.values())
            console.print(', '.join(f'{count} {state}' for state, count in counts.items()), highlight=False)
            return 0 if set(counts) <= {'done', 'kept'} else 1
        if args.launcher != 'local' and args.jobs > 1:
            raise ValueError(f'--jobs is for --launcher local; {args.launcher} runs as many as it can.')
        if args.launcher == 'print' and args.redo:
            raise ValueError('--redo removes folders, and --launcher print runs nothing that would fill them again.')
        if args.launcher == 'print':
            print('\n'.join(launch.command_lines(launch.pending(jobs, args.redo, kept))))
            return 0
        if args.launcher == 'slurm':
            for name, number in slurm.submit(study, jobs, redo=args.redo, kept=kept):
                console.print(f'{number}  {name}', highlight=False)
            return 0
        states = launch.run_locally(study, jobs, console, args.jobs, args.redo, kept)
    except (OSError, ValueError, ImportError) as error:
        return report_error('run.py', error)
    counts = Counter(states.values())
    counts['done before'] = len(jobs) - len(states)
    console.print(', '.join(f'{count} {state}' for state, count in counts.items() if count), highlight=False)
    return 0 if set(states.values()) <= {'done'} else 1


if __name__ == '__main__':
    sys.exit(main())
