"""Write the report of studies: a page for the browser, Markdown, and CSV with every single figure.

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
from mmnfn.experiments.outcome import RESULTS, read_results, write_results
from mmnfn.experiments.results import StudyResults
from mmnfn.utils import atomic_write
from mmnfn.visualization.study_figures import study_panels
from mmnfn.visualization.study_page import Part, study_page
from mmnfn.visualization.study_tables import comma_separated, make_table, markdown, read_layouts

ROOT = Path(__file__).resolve().parents[2]


def parse_args(argv=None):
    """Command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', nargs='+', metavar='STUDY.yml', help='the studies')
    parser.add_argument('--work-dir', help="folder of their jobs; default each study's own")
    parser.add_argument('--results', metavar='FILE', help='results.json of an earlier report, for jobs not done here')
    parser.add_argument('--title', help="heading of the page; default the studies' names")
    parser.add_argument('--out', type=Path, default=Path('report'), help='folder to write; default ./report')
    return parser.parse_args(argv)


def report(number, path, work_dir, files, outcomes, owners):
    """One study's part of the page; its CSV files are added to ``files``, its outcomes to those known before, and the
    study's path to ``owners`` as that of each outcome."""
    study = read_study(path, ROOT, work_dir)
    layouts = read_layouts(study)
    if not layouts:
        raise ValueError(f'STUDY: {study.path} asks for no tables.')
    results = StudyResults(study, outcomes)
    for name, outcome in results.outcomes.items():
        if name in owners and outcomes[name].fingerprint != outcome.fingerprint:
            raise ValueError(
                f'STUDY: {owners[name]} and {study.path} both have {name}, with other settings; {RESULTS} could keep '
                'one of them only. Give a row another name, or report them in two folders.'
            )
        owners[name], outcomes[name] = study.path, outcome
    tables = [make_table(results, layout) for layout in layouts]
    for place, layout in enumerate(layouts, 1):
        name = f'{study.path.stem}_table{place}.csv'
        if name in files:
            raise ValueError(f'STUDY: two of the files are called {study.path.name}; give them one after another.')
        files[name] = comma_separated(results, layout)
    progress = f'{len(results.outcomes)} of {len(study.jobs)} jobs are done.'
    if results.stale:
        progress += f' {results.stale} were done with other settings, and are left out.'
    for (_, metric), where in results.lacking.items():
        progress += (
            f' {metric} is not in metrics.json of {where}. Correct the tables, or give that test what it lacked, '
            'remove its metrics.json and run the study again.'
        )
        print(f'report.py: {study.path}: {metric} is not in metrics.json of {where}.', file=sys.stderr)
    panels = []
    for name, node in study.content['backbones'].items():
        panels += study_panels(results, name, list(node.get('pretrain') or {}), f'study{number}-')
    return Part(study.name, progress, tables, panels)


def main(argv=None):
    """Report; returns the exit code."""
    args = parse_args(argv)
    files, owners = {}, {}
    try:
        outcomes = read_results(args.results) if args.results else {}
        parts = [
            report(number, path, args.work_dir, files, outcomes, owners) for number, path in enumerate(args.study, 1)
        ]
        title = args.title or '; '.join(part.name for part in parts)
        files['report.html'] = study_page(title, parts)
        text = [f'# {title}']
        for part in parts:
            text += [f'## {part.name}', part.progress, *map(markdown, part.tables)]
        files['report.md'] = '\n\n'.join(text) + '\n'
        for name, content in files.items():
            with atomic_write(args.out / name) as temporary:
                Path(temporary).write_text(content, encoding='utf-8')
            print(args.out / name)
        write_results(args.out / RESULTS, outcomes)
        print(args.out / RESULTS)
    except (OSError, ValueError, ImportError) as error:
        return report_error('report.py', error)
    return 0


if __name__ == '__main__':
    sys.exit(main())
