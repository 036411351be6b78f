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
from mmnfn.experiments import read_study, runner
from mmnfn.experiments.report import read_results

ROOT = Path(__file__).resolve().parents[2]


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', metavar='STUDY.yml', help='the study; the shipped ones are in studies/')
    parser.add_argument('--work-dir', help="folder of all jobs; default the study's own")
    text = 'run here, through Slurm (submitit), or print the commands; default local'
    parser.add_argument('--launcher', choices=('local', 'slurm', 'print'), default='local', help=text)
    text = 'how many jobs run at a time here; they share cores and GPUs'
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help=text)
    parser.add_argument('--only', default='', metavar='TEXT', help='jobs with TEXT in their name, and what they need')
    text = 'results.json of a report: what it holds is not run again, unless another job needs its files'
    parser.add_argument('--results', metavar='FILE', help=text)
    parser.add_argument('--status', action='store_true', help='say what is done, and run nothing')
    parser.add_argument('--redo', action='store_true', help='run jobs anew that were done with other settings')
    return parser.parse_args(argv)


def main(argv=None):
    """Run; returns the exit code: 0 if all jobs are done (or submitted), 1 if some are not, 2 for wrong input."""
    args = parse_args(argv)
    console = Console(soft_wrap=True, highlight=False)
    try:
        study = read_study(args.study, ROOT, args.work_dir)
        jobs = runner.select(study, args.only)
        kept = read_results(args.results) if args.results else {}
        if args.status:
            states = runner.job_states(jobs, kept)
            console.print('\n'.join(f'{state:12} {name}' for name, state in states.items()))
        elif args.launcher == 'local':
            states = runner.run_locally(study, jobs, console, args.jobs, args.redo, kept)
        elif args.launcher == 'slurm':
            for name, number in runner.submit(study, jobs, args.redo, kept).items():
                console.print(f'{number}  {name}')
            return 0
        else:
            print('\n'.join(runner.command_lines(runner.pending(jobs, kept=kept))))
            return 0
    except (OSError, ValueError, ImportError) as error:
        return report_error('run.py', error)
    counts = Counter(states.values())
    counts['done before'] = len(jobs) - len(states)
    console.print(', '.join(f'{count} {state}' for state, count in counts.items() if count))
    return 0 if set(states.values()) <= {'done', 'kept'} else 1


if __name__ == '__main__':
    sys.exit(main())
