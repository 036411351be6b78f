"""The tables of an inspection, and the command that prints them."""

import importlib.util
import io
from pathlib import Path

import pytest
from release_tree import ROIS, copy_tree, overwrite, remove
from rich.console import Console

from mmnfn.datasets.inspection import inspect
from mmnfn.visualization.inspection_tables import render


@pytest.fixture()
def tree(world, tmp_path):
    return copy_tree(world / 'nsd', tmp_path / 'nsd')


def rendered(report, width=200):
    stream = io.StringIO()
    render(report, Console(file=stream, width=width))
    return stream.getvalue()


def test_an_empty_tree(tmp_path):
    (tmp_path / 'nsddata').mkdir()
    assert 'holds nothing of any subject' in rendered(inspect(tmp_path))


def test_render(tree):
    tree.beta_file('subj01', 1).unlink()
    remove(tree, ROIS.format('subj01', 'floc-words'))
    overwrite(tree.stim_info_file, b'nothing')
    report = inspect(tree.root)
    text = rendered(report)
    rows = {line.split('│')[1].strip(): line.split('│')[2:4] for line in text.splitlines() if line.count('│') == 4}
    cells = [[cell.strip() for cell in row] for row in rows.values()]
    assert [cell.strip() for cell in rows['b3: sessions']] == ['2 of 2 (1 HDF5, 2 NIfTI)', '1 of 2 (HDF5, NIfTI)']
    assert [cell.strip() for cell in rows['floc-words']][0] == 'missing'
    assert [str(subject.union) for subject in report.subjects] in cells
    assert f'download {ROIS.format("subj01", "floc-words")}\n' in text
    assert 'no     COCO overlap and captions: problem 1\n' in text and f'1. {tree.stim_info_file} ' in text
    narrow = rendered(report, 60)
    assert text.count('Subjects in') == 1 and narrow.count('Subjects in') == 2
    assert f'download {ROIS.format("subj01", "floc-words")}\n' in narrow  # not broken, to be copied


@pytest.fixture()
def run(capsys):
    """Run the tool in this process; exit code, stdout and stderr."""

    def call(*arguments):
        file = Path(__file__).parents[2] / 'tools/inspect_nsd.py'
        spec = importlib.util.spec_from_file_location('inspect_nsd', file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capsys.readouterr()
        code = module.main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


def test_command_line(run, tree):
    code, out, err = run(tree.root)
    assert (code, err) == (0, '') and 'yes    ROI store (b3 subj01, subj02): all its files are there' in out
    code, out, _ = run(tree.root, '--subjects', 2, '--beta-version', 'b2')
    assert code == 0 and 'subj01' not in out and 'no     ROI store (b2 subj02): no session of b2 betas' in out
    overwrite(tree.stimuli_file, b'nothing')
    code, out, _ = run(tree.root)
    assert code == 1 and f'1. {tree.stimuli_file} is no readable HDF5 file' in out


@pytest.mark.parametrize(
    'arguments, named',
    [
        (('{root}/nowhere',), 'nowhere does not exist'),
        (('{root}/nsddata',), 'no NSD release tree'),
        (('{root}', '--subjects', '9'), "subject is 'subj09'"),
    ],
)
def test_errors_are_one_line(run, world, arguments, named):
    code, out, err = run(*(argument.format(root=world / 'nsd') for argument in arguments))
    assert code == 1 and out == '' and err.startswith('inspect_nsd.py: error: ') and named in err
    assert err.count('\n') == 1
