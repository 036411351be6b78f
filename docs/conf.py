"""Sphinx: make docs."""

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
