"""What a wheel holds, and what the model index says."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mmnfn

ROOT = Path(__file__).resolve().parents[1]
METAFILES = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The package as a wheel holds it."""
    base = tmp_path_factory.mktemp('build')
    subprocess.run([sys.executable, 'setup.py', '-q', 'build', '--build-base', str(base)], cwd=ROOT, check=True)
    return base / 'lib' / 'mmnfn'


def relative_files(folder, *suffixes):
    return {path.relative_to(folder) for path in folder.rglob('*') if path.suffix in suffixes}


def test_every_module_is_in_the_wheel(built):
    """A folder without __init__.py imports from the tree, but is left out of a wheel."""
    assert relative_files(built, '.py') >= relative_files(ROOT / 'mmnfn', '.py')


def test_mim_files_are_in_the_wheel(built):
    mim = built / '.mim'
    assert (mim / 'model-index.yml').is_file()
    assert (mim / 'tools' / 'train.py').is_file()
    assert relative_files(mim / 'studies', '.yml') == relative_files(ROOT / 'studies', '.yml')
    assert not (mim / 'tools' / 'dev').exists()
    assert relative_files(mim / 'configs', '.py', '.yml') == relative_files(ROOT / 'configs', '.py', '.yml')


def test_build_leaves_the_tree_as_it_was(built):
    assert not (ROOT / 'mmnfn' / '.mim').exists()
    assert not any(path.is_symlink() for path in (ROOT / 'mmnfn').rglob('*'))


def test_version_of_the_distribution():
    output = subprocess.check_output([sys.executable, 'setup.py', '--version'], cwd=ROOT, text=True)
    assert output.split()[-1] == mmnfn.__version__


def test_every_metafile_is_listed():
    assert sorted(METAFILES) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').glob('*/metafile.yml')
    )


@pytest.mark.parametrize('metafile', METAFILES)
def test_metafile(metafile):
    content = yaml.safe_load((ROOT / metafile).read_text())
    collections = {collection['Name'] for collection in content['Collections']}
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()
    for model in content['Models']:
        assert model['In Collection'] in collections
        assert (ROOT / model['Config']).is_file()
        assert model['Name'] == Path(model['Config']).stem
