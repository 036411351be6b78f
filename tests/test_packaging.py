"""What a wheel holds, that mmnfn.nsd works from it without PyTorch, and what the model index says."""

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from algonauts_tree import write_stim_info
from nsd_tree import CLASSES

import mmnfn

ROOT = Path(__file__).resolve().parents[1]
METAFILES = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
SCIENTIFIC = ('numpy', 'h5py', 'nibabel', 'scipy', 'pandas', 'tqdm')
THEIRS = ('python-dateutil', 'pytz', 'tzdata', 'six', 'packaging', 'importlib-resources', 'zipp', 'typing-extensions')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The package as pip installs it."""
    out = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', out, 'bdist_wheel', '-d', out / 'dist']
    subprocess.run(command, cwd=ROOT, check=True)
    return next((out / 'dist').glob('mmnfn-*.whl'))


@pytest.fixture(scope='module')
def bare(wheel, tmp_path_factory):
    """Run a command of a Python that has the wheel and the scientific libraries, but no PyTorch and no mmengine."""
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    pip = [sys.executable, '-m', 'pip', '-q', '--python', folder / 'bin/python']
    subprocess.run([*pip, 'install', '--no-deps', '--no-index', wheel], check=True)
    site = next(folder.glob('lib/python*/site-packages'))
    for name in SCIENTIFIC + THEIRS:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # not needed by the versions that are installed
            continue
        for part in {file.parts[0] for file in distribution.files} - {'..', '__pycache__'}:
            (site / part).symlink_to(distribution.locate_file(part))

    def run(command, *arguments):
        env = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        command = [folder / 'bin' / command, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout

    return run


def test_wheel_holds_every_module_and_what_mim_looks_for(wheel):
    """A folder without __init__.py imports from the tree, but is left out of a wheel."""
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmnfn').rglob('*.py')}
    for folder in ('configs', 'studies'):
        expected |= {
            f'mmnfn/.mim/{path.relative_to(ROOT).as_posix()}'
            for path in (ROOT / folder).rglob('*')
            if path.suffix in ('.py', '.yml')
        }
    assert expected | {'mmnfn/.mim/model-index.yml', 'mmnfn/.mim/tools/train.py'} <= names
    assert not any(name.startswith('mmnfn/.mim/tools/dev') for name in names)


def test_build_leaves_the_tree_as_it_was(wheel):
    assert not (ROOT / 'mmnfn' / '.mim').exists() and not (ROOT / 'dist').exists()
    assert not any(path.is_symlink() for path in (ROOT / 'mmnfn').rglob('*'))


def test_nsd_works_without_torch_and_mmengine(bare, tiny, tmp_path):
    script = (
        'from importlib.util import find_spec\n'
        'from mmnfn.nsd import ROIStore, prepare\n'
        'import mmnfn\n'
        f'assert mmnfn.__version__ == {mmnfn.__version__!r}\n'
        'assert not any(find_spec(name) for name in ("torch", "mmengine", "mmcv", "mmpretrain", "cv2"))\n'
    )
    bare('python', '-c', script)
    assert 'b3 sessions' in bare('mmnfn-nsd', 'inspect', tiny.root)
    store = tmp_path / 'store'
    out = bare('mmnfn-nsd', 'prepare', tiny.root, store, '--rois', *CLASSES, '--image-size', 16, '--verify', 3)
    assert f'wrote {store}/subj02.h5' in out and f'wrote {store}/images_16.h5' in out and 'largest difference' in out
    read = f'from mmnfn.nsd import ROIStore; print(ROIStore({str(store / "subj02.h5")!r}).responses.shape)'
    assert bare('python', '-c', read).startswith('(')
    table = write_stim_info(tmp_path / 'info.csv')
    assert bare('mmnfn-nsd', 'overlap', table) == 'images used by NSD: 100 (100 of train2017, 0 of val2017)\n'


def test_version_of_the_distribution(wheel):
    assert wheel.name.split('-')[1] == mmnfn.__version__


def test_every_metafile_is_listed():
    assert sorted(METAFILES) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').glob('*/metafile.yml')
    )


@pytest.mark.parametrize('metafile', METAFILES)
def test_metafile_names_files_that_exist(metafile):
    content = yaml.safe_load((ROOT / metafile).read_text())
    collections = {collection['Name'] for collection in content['Collections']}
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()
    for model in content['Models']:
        assert model['In Collection'] in collections
        assert (ROOT / model['Config']).is_file()
        assert model['Name'] == Path(model['Config']).stem
