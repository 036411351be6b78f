"""Write the tables of a study: Markdown for people, CSV with every single figure.

Example:
    python tools/experiments/report.py studies/table1_micro.yml --out report

Cells whose jobs are not done are marked as missing.
"""

import argparse
import sys
from pathlib import Path

from mmnfn.engine.run_config import report_error
from mmnfn.engine.whole_file import whole_file
from mmnfn.experiments import read_study
from mmnfn.visualization.study_tables import comma_separated, make_table, markdown, read_layouts

ROOT = Path(__file__).resolve().parents[2]


def parse_args(argv=None):
    """Command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', metavar='STUDY.yml', help='the study')
    parser.add_argument('--work-dir', help="folder of its jobs; default the study's own")
    parser.add_argument('--out', type=Path, default=Path('report'), help='folder to write; default ./report')
    return parser.parse_args(argv)


def main(argv=None):
    """Report; returns the exit code."""
    args = parse_args(argv)
    try:
        study = read_study(args.study, ROOT, args.work_dir)
        layouts = read_layouts(study)
        if not layouts:
            raise ValueError(f'STUDY: {study.path} asks for no tables.')
        done = sum(job.state() == 'done' for job in study.jobs)
        parts = [f'# {study.name}', f'{done} of {len(study.jobs)} jobs are done.']
        files = {}
        for number, layout in enumerate(layouts, 1):
            parts.append(markdown(make_table(study, layout)))
            files[f'table{number}.csv'] = comma_separated(study, layout)
    except (FileNotFoundError, ValueError) as error:
        return report_error('report.py', error)
    files['report.md'] = '\n\n'.join(parts) + '\n'
    for name, text in files.items():
        with whole_file(args.out / name) as temporary:
            Path(temporary).write_text(text, encoding='utf-8')
        print(args.out / name)
    return 0


if __name__ == '__main__':
    sys.exit(main())
