"""The documentation builds without warnings, and what it tells people to type is there and takes these arguments."""

import argparse
import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys

import pytest
from documented import COMMANDS, EXAMPLES, PAGES, ROOT, SCRIPTS, SNIPPETS


class Parsed(Exception):
    """Arguments were accepted."""


def stop_after(parse):
    def stop(self, *args, **kwargs):
        raise Parsed(parse(self, *args, **kwargs))

    return stop


def accept(script, arguments, monkeypatch):
    """Run a tool as far as its arguments; those that are wrong end in SystemExit."""
    spec = importlib.util.spec_from_file_location(f'documented_{script.stem}', script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ('parse_args', 'parse_intermixed_args'):
        monkeypatch.setattr(argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name)))
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    with pytest.raises(Parsed):
        module.main()


def identifier(value):
    return value[1].split('#')[0].strip()[:70] if isinstance(value, tuple) else None


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_tool_has_an_example(script):
    assert script in {path for path, _ in EXAMPLES}


@pytest.mark.parametrize('command', COMMANDS + EXAMPLES, ids=identifier)
def test_commands(command, monkeypatch):
    words = shlex.split(command[1].split(' > ')[0], comments=True)
    while re.match('[A-Z_]+=', words[0]):
        del words[0]
    for word in words:
        if word.startswith(('configs/', 'studies/', 'requirements/', 'benchmarks/')):
            assert list(ROOT.glob(word)), f'{word} is not there'
    if words[0] == 'make':
        targets = re.findall(r'^(\w+):.*##', (ROOT / 'Makefile').read_text(), re.MULTILINE)
        assert set(word for word in words[1:] if '=' not in word) <= set(targets)
    elif words[0] == 'python':
        assert (ROOT / words[1]).is_file()
        if words[1].startswith('tools/'):
            accept(ROOT / words[1], words[2:], monkeypatch)
    elif words[0].startswith('tools/'):
        script = ROOT / words[0]
        subprocess.run(['bash', '-n', str(script)], check=True)
        task = 'train' if 'train' in script.name else 'test'
        # CONFIG [CHECKPOINT] GPUS, or PARTITION JOB CONFIG (WORK_DIR or CHECKPOINT), then those of tools/TASK.py
        if script.name.startswith('slurm'):
            positional, rest = (words[3:4] if task == 'train' else words[3:5]), words[5:]
        else:
            count = 2 if task == 'train' else 3
            positional, rest = words[1:count], words[count + 1 :]
            assert words[count].isdigit() or words[count] == 'GPUS'
        accept(ROOT / f'tools/{task}.py', [*positional, *rest], monkeypatch)
    else:
        assert words[0] in ('pip', 'mim', 'source', 'pre-commit'), f'{words[0]} is not known to this test'


@pytest.mark.parametrize('snippet', SNIPPETS, ids=lambda value: f'{value[0].stem}: {value[1].splitlines()[0][:40]}')
def test_python(snippet):
    """It is Python, and what it imports from mmnfn is there."""
    for node in ast.walk(ast.parse(snippet[1])):
        if isinstance(node, ast.ImportFrom) and node.module.startswith('mmnfn'):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name), f'{node.module} has no {name.name}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links(page):
    for link in re.findall(r'\]\(([^)#\s]+)', page.read_text(encoding='utf-8')):
        if not link.startswith(('http:', 'https:', 'mailto:')):
            assert (page.parent / link).exists(), f'{link} in {page.name} leads nowhere'


def test_the_documentation_builds_without_warnings(tmp_path):
    pytest.importorskip('sphinx')
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', 'docs', str(tmp_path / 'out')]
    done = subprocess.run([*command, '-d', str(tmp_path / 'doctrees')], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / 'out/api.html').read_text()
    for name in ('NeuroFusionNet', 'ROIStore', 'FMRIGuidedLoss', 'EncodingMetric', 'read_study'):
        assert name in text
