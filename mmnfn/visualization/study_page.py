"""A study's report as one self-contained page, for light and dark, wide and narrow screens."""

from __future__ import annotations

from pathlib import Path
from typing import List, NamedTuple, Sequence

from mmnfn.version import __version__

from .study_figures import Panel
from .study_tables import Table

TEMPLATE = Path(__file__).with_name('study_page.html')


class Part(NamedTuple):
    """What the report has of one study.

    Attributes:
        name: Its heading.
        progress: How much of it is done.
        tables: Its tables.
        panels: Its figures.
    """

    name: str
    progress: str
    tables: List[Table]
    panels: List[Panel]


def study_page(title: str, parts: Sequence[Part]) -> str:
    """The page's HTML.

    Raises:
        ImportError: jinja2 is not installed; PyTorch brings it.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding='utf-8'))
    return template.render(title=title, version=__version__, parts=parts)
