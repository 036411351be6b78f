"""The documentation builds, its links lead somewhere, and commands that no test runs take the documented arguments."""

import argparse
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from documented import COMMANDS, EXAMPLES, PAGES, ROOT, SCRIPTS
from documented_home import is_run, script_of


class Parsed(Exception):
    """The arguments were accepted."""


def accept(words, monkeypatch):
    """Run a tool until it has parsed its arguments; wrong ones end in SystemExit."""
    main = runpy.run_path(str(ROOT / words[0]))['main']
    parse = argparse.ArgumentParser.parse_known_args

    def stop(*args, **kwargs):
        raise Parsed(parse(*args, **kwargs))

    for name in ('parse_args', 'parse_intermixed_args'):
        monkeypatch.setattr(argparse.ArgumentParser, name, stop)
    monkeypatch.setattr(sys, 'argv', words)
    with pytest.raises(Parsed) as parsed:
        main()
    assert not parsed.value.args[0][1], 'unknown arguments'


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_tool_has_an_example(script):
    assert EXAMPLES[script]


@pytest.mark.parametrize('command', [command for command in COMMANDS if not is_run(command)])
def test_commands_that_are_not_run_have_right_arguments(command, monkeypatch):
    words = shlex.split(script_of(command))
    for word in words:
        if word.startswith(('configs/', 'studies/', 'requirements/', 'benchmarks/', 'tools/')):
            assert list(ROOT.glob(word)), f'{word} is not there'
    if words[0] == 'make':
        targets = re.findall(r'^(\w+):.*##', (ROOT / 'Makefile').read_text(), re.MULTILINE)
        assert {word for word in words[1:] if '=' not in word} <= set(targets)
    elif words[0] == 'python' and words[1].startswith('tools/'):
        accept(words[1:], monkeypatch)
    else:
        assert words[0] in ('pip', 'mim', 'source', 'pre-commit') or words[1].startswith('benchmarks/')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
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
