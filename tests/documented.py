"""What the documentation and the tools' own help tell people to type."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').glob('*.md'), *ROOT.glob('examples/*.md')]
)
BLOCK = re.compile(r'^```(shell|python)\n(.*?)^```', re.MULTILINE | re.DOTALL)
COMMANDS = [
    (page, line)
    for page in PAGES
    for kind, text in BLOCK.findall(page.read_text(encoding='utf-8'))
    if kind == 'shell'
    for line in text.replace('\\\n', ' ').splitlines()
    if line.split('#')[0].strip()
]
SCRIPTS = sorted(path for path in (ROOT / 'tools').rglob('*.py') if path.parent.name != 'dev')
EXAMPLES = [
    (script, line.strip())
    for script in SCRIPTS
    for line in (ast.get_docstring(ast.parse(script.read_text())) or '').replace('\\\n', ' ').splitlines()
    if line.strip().startswith(('python tools/', 'tools/'))
]
SNIPPETS = [(page, text) for page in PAGES for kind, text in BLOCK.findall(page.read_text()) if kind == 'python']
