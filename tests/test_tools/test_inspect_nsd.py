"""The command that says what an NSD tree holds."""

import pytest
from release_tree import copy_tree, overwrite


@pytest.fixture()
def tree(world, tmp_path):
    return copy_tree(world / 'nsd', tmp_path / 'nsd')


def test_command_line(run, tree):
    code, out, err = run('inspect_nsd', tree.root)
    assert (code, err) == (0, '') and 'yes    ROI store (b3 subj01, subj02): all its files are there' in out
    code, out, _ = run('inspect_nsd', tree.root, '--subjects', 2, '--beta-version', 'b2')
    assert code == 0 and 'subj01' not in out and 'no     ROI store (b2 subj02): no session of b2 betas' in out
    overwrite(tree.stimuli_file, b'nothing')
    code, out, _ = run('inspect_nsd', tree.root)
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
    code, out, err = run('inspect_nsd', *(argument.format(root=world / 'nsd') for argument in arguments))
    assert code == 1 and out == '' and err.startswith('inspect_nsd.py: error: ') and named in err
    assert err.count('\n') == 1
