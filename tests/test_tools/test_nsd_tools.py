"""The commands that make, inspect and prepare data: what they write, and what they say about wrong arguments."""

import pytest

from mmnfn.nsd.cli import main


def test_a_simulated_world_is_replaced_only_if_asked(run, tmp_path):
    size = ('--subjects', 1, '--sessions', 1, '--voxel-mm', 8, '--stimulus-size', 32, '--workers', 1)
    code, out, _ = run('simulate_nsd', tmp_path / 'sim', *size)
    assert code == 0 and 'subj01: 250 images' in out
    code, _, err = run('simulate_nsd', tmp_path / 'sim', *size)
    assert code == 1 and '--overwrite' in err


def test_inspection_says_what_can_be_done(run, tiny, tree):
    code, out, err = run('inspect_nsd', tiny.root)
    assert (code, err) == (0, '') and 'yes COCO' not in out and 'no  ROI store (b3 subj01): floc-bodies.nii.gz' in out
    code, out, _ = run('inspect_nsd', tiny.root, '--subjects', 2, '--beta-version', 'b2')
    assert code == 0 and 'subj01' not in out and 'no  ROI store (b2 subj02): ' in out
    tree.stimuli_file.write_bytes(b'nothing')
    code, out, _ = run('inspect_nsd', tree.root)
    assert code == 1 and f'1. {tree.stimuli_file} ' in out


@pytest.mark.parametrize(
    'tool, arguments, named',
    [
        ('inspect_nsd', ('nowhere',), 'nowhere is no NSD release tree'),
        ('prepare_nsd', ('nowhere', 'store'), 'nowhere is no NSD release tree'),
        ('prepare_nsd', ('{root}', 'store', '--subjects', '2', '--rois', 'V1'), "ROI class is 'V1'"),
        ('prepare_nsd', ('{root}', 'store', '--image-size', '3'), '--image-size is 3'),
    ],
)
def test_errors_are_one_line(run, tiny, tmp_path, monkeypatch, tool, arguments, named):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(tool, *(a.format(root=tiny.root) for a in arguments))
    assert code == 1 and out == '' and err.startswith(f'{tool}.py: error: ') and named in err and err.count('\n') == 1
    assert not list(tmp_path.rglob('*.h5'))


def test_one_command_runs_all_of_them(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr('sys.argv', ['mmnfn-nsd'])
    assert main(['inspect', str(tmp_path / 'nowhere')]) == 1
    assert capsys.readouterr().err.startswith('mmnfn-nsd inspect: error: NSD root folder is missing')
    with pytest.raises(SystemExit):
        main(['prepare', '--help'])
    assert capsys.readouterr().out.startswith('usage: mmnfn-nsd prepare ')
    with pytest.raises(SystemExit):
        main(['nothing'])
    assert 'prepare-algonauts' in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments, named',
    [
        (('--subjects', '9'), 'subjects is 9'),
        (('--images', 'photos'), 'images and annotations belong together'),
    ],
)
def test_errors_of_simulation_are_one_line(run, tmp_path, monkeypatch, arguments, named):
    monkeypatch.chdir(tmp_path)
    code, _, err = run('simulate_nsd', 'sim', *arguments)
    assert code == 1 and named in err and err.count('\n') == 1
    assert list(tmp_path.iterdir()) == []
