"""Everything that the documentation and the tools' own help tell people to type."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').glob('*.md'), *ROOT.glob('examples/*.md')]
)
BLOCKS = [
    (page, kind, text)
    for page in PAGES
    for kind, text in re.findall(r'^```(shell|python)\n(.*?)^```', page.read_text('utf-8'), re.MULTILINE | re.DOTALL)
]
SNIPPETS = [(page, text) for page, kind, text in BLOCKS if kind == 'python']
SCRIPTS = sorted(path for path in (ROOT / 'tools').rglob('*.py') if path.parent.name != 'dev')


def _commands(text):
    """Return the lines of a text as commands, without comments, continued lines joined."""
    return [' '.join(line.split('#')[0].split()) for line in text.replace('\\\n', ' ').splitlines()]


EXAMPLES = {
    script: [
        command
        for command in _commands(ast.get_docstring(ast.parse(script.read_text())) or '')
        if command.startswith(('python tools/', 'tools/'))
    ]
    for script in SCRIPTS
}
COMMANDS = sorted(
    {command for _, kind, text in BLOCKS if kind == 'shell' for command in _commands(text) if command}.union(
        *EXAMPLES.values()
    )
)
