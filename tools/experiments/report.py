"""Write the report of studies: a page for the browser, Markdown, and CSV with every single value.

Example:
    python tools/experiments/report.py studies/tables_1-2_micro.yml --out report
    python tools/experiments/report.py studies/*_micro.yml --results report/results.json --out report

Cells whose jobs are not done are marked as missing. All that the report is made of is kept in results.json, which
--results of this command and of run.py takes: then the jobs' folders may be elsewhere, or gone.
"""

import argparse
import sys
from pathlib import Path

from mmnfn.engine.run_config import report_error
from mmnfn.experiments import read_study
from mmnfn.experiments.report import read_results, write_report

ROOT = Path(__file__).resolve().parents[2]


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', nargs='+', metavar='STUDY.yml', help='the studies')
    parser.add_argument('--work-dir', help="folder of their jobs; default each study's own")
    parser.add_argument('--results', metavar='FILE', help='results.json of an earlier report, for jobs not done here')
    parser.add_argument('--title', help="heading of the page; default the studies' names")
    parser.add_argument('--out', type=Path, default=Path('report'), help='folder to write; default ./report')
    return parser.parse_args(argv)


def main(argv=None):
    """Report; returns the exit code."""
    args = parse_args(argv)
    try:
        kept = read_results(args.results) if args.results else {}
        studies = [read_study(path, ROOT, args.work_dir) for path in args.study]
        print('\n'.join(map(str, write_report(studies, args.out, kept, args.title))))
    except (OSError, ValueError) as error:
        return report_error('report.py', error)
    return 0


if __name__ == '__main__':
    sys.exit(main())
