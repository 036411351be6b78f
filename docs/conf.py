"""Sphinx: make docs."""

import subprocess
import sys
from pathlib import Path

from mmnfn import __version__

project = 'mmnfn'
author = 'mmnfn contributors'
copyright = 'mmnfn contributors'
version = release = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'mmnfn {release}'
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
# docstrings are Google style; `Errors` of one line stand under Raises
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_heading_anchors = 3

# The report of each study whose results.json is kept in docs/results under the study's name, e.g. table_3_micro.json.
reports = Path(__file__).parents[1] / 'build/reports'
for results in sorted(Path(__file__).parent.glob('results/*.json')):
    study = f'studies/{results.stem}.yml'
    command = ['tools/experiments/report.py', study, '--results', results, '--out', reports / results.stem]
    subprocess.run([sys.executable, *command], cwd=reports.parents[1], check=True)
html_extra_path = [str(reports)] if reports.is_dir() else []
