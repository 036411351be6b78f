"""The choice of stack and Python for the Makefile, with pretended Pythons on the PATH."""

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'dev' / 'choose_python.sh'


@pytest.fixture
def choose(tmp_path):
    """Run the script in an empty folder where the commands are ``name=version``, None for one that does not run."""

    def run(stack='', python='', **commands):
        folder = tmp_path / 'bin'
        folder.mkdir(exist_ok=True)
        names = ('python3', *(f'python3_{minor}' for minor in range(9, 14)))
        for name, version in {**dict.fromkeys(names), **commands}.items():
            command = folder / name.replace('_', '.')
            action = 'exit 127' if version is None else f'echo {version} /real/{name}'
            command.write_text(f'#!/bin/sh\n{action}\n')
            command.chmod(0o755)
        result = subprocess.run(
            ['sh', str(SCRIPT), stack, python],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, 'PATH': f'{folder}{os.pathsep}{os.environ["PATH"]}'},
        )
        return result.stdout.strip(), result.stderr.strip()

    return run


@pytest.mark.parametrize(
    'demand, commands, choice',
    [
        ({}, dict(python3=311), 'official /real/python3'),
        ({}, dict(python3=312, python3_10=310), 'official /real/python3_10'),
        (dict(stack='onedl'), dict(python3=311), 'onedl /real/python3'),
        (dict(stack='onedl'), dict(python3=309, python3_11=311), 'onedl /real/python3_11'),
        (dict(python='python3.9'), dict(python3=311, python3_9=309), 'official /real/python3_9'),
    ],
)
def test_first_python_that_suits_is_taken(choose, demand, commands, choice):
    assert choose(**demand, **commands) == (choice, '')


def test_newer_python_takes_onedl_and_says_so(choose):
    choice, notice = choose(python3=313)
    assert choice == 'onedl /real/python3'
    assert 'python3 is Python 3.13' in notice and 'taking the OneDL stack' in notice and '\n' not in notice


@pytest.mark.parametrize(
    'stack, python, commands, message',
    [
        ('official', '', dict(python3=312), 'STACK=official needs Python 3.9-3.11, but python3 is Python 3.12'),
        ('', '', dict(python3=308), 'mmnfn needs Python 3.9-3.11 .* but python3 is Python 3.8'),
        ('', '', {}, 'python3 does not run: install Python'),
        ('', '/no/such/python', dict(python3=311), '/no/such/python does not run'),
        ('torch', '', dict(python3=311), 'STACK=torch is unknown: it is official or onedl'),
    ],
)
def test_errors_are_one_line(choose, stack, python, commands, message):
    choice, notice = choose(stack, python, **commands)
    assert choice.startswith('error ') and '\n' not in choice and notice == ''
    assert re.search(message, choice)
