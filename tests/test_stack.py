"""The check of the OpenMMLab libraries at import."""

import subprocess
import sys

import pytest

from mmnfn import stack

SUITABLE = {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmpretrain': '1.2.0'}


def pretend(monkeypatch, **versions):
    monkeypatch.setattr(stack, 'installed_version', {**SUITABLE, **versions}.get)


def test_import_takes_no_downstream_library():
    """The package must import where MMDetection, MMSegmentation and the compiled ops are missing."""
    script = (
        'import sys\n'
        'for name in ("mmdet", "mmseg", "mmcv.ops", "mmcv._ext"):\n'
        '    sys.modules[name] = None\n'  # an import of it now fails
        'import mmnfn\n'
    )
    assert subprocess.run([sys.executable, '-c', script]).returncode == 0


def test_this_environment_is_suitable():
    stack.check_stack()


@pytest.mark.parametrize('name, version', [('mmengine', '0.10.12'), ('mmcv', '2.3.6'), ('mmpretrain', '1.3.6')])
def test_onedl_versions_are_suitable(monkeypatch, name, version):
    pretend(monkeypatch, **{name: version})
    stack.check_stack()


@pytest.mark.parametrize('name', SUITABLE)
def test_missing_library_is_named(monkeypatch, name):
    pretend(monkeypatch, **{name: None})
    with pytest.raises(ImportError, match=f'needs {name}>=.*not installed.*make env') as error:
        stack.check_stack()
    assert error.value.name == name


@pytest.mark.parametrize(
    'name, version',
    [('mmengine', '0.9.1'), ('mmcv', '1.7.2'), ('mmcv', '2.0.0rc4'), ('mmpretrain', '1.1.1'), ('mmpretrain', '2.0.0')],
)
def test_unsuitable_version_is_named(monkeypatch, name, version):
    pretend(monkeypatch, **{name: version})
    with pytest.raises(ImportError, match=f'needs {name}>=.*{version} is installed'):
        stack.check_stack()


def test_version_is_found_under_either_name(monkeypatch):
    def version(distribution):
        if distribution == 'onedl-mmcv':
            return '2.3.6'
        raise stack.metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(stack.metadata, 'version', version)
    assert stack.installed_version('mmcv') == '2.3.6'


def test_folder_of_the_same_name_is_no_package(monkeypatch, tmp_path):
    (tmp_path / 'mmpretrain').mkdir()
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'mmpretrain', raising=False)
    assert stack.installed_version('mmpretrain') is None


@pytest.mark.parametrize('mixed', [True, False])
def test_mixed_stacks_are_named(monkeypatch, mixed):
    installed = {'mmengine': '0.10.7', 'mmsegmentation': '1.2.2'}
    if mixed:
        installed['onedl-mmcv'] = '2.3.6'

    def version(distribution):
        if distribution not in installed:
            raise stack.metadata.PackageNotFoundError(distribution)
        return installed[distribution]

    pretend(monkeypatch)
    monkeypatch.setattr(stack.metadata, 'version', version)
    if not mixed:
        stack.check_stack()
        return
    words = r'mixed, official \(mmengine 0.10.7, mmsegmentation 1.2.2\) and OneDL \(onedl-mmcv 2.3.6\).*make env'
    with pytest.raises(ImportError, match=words):
        stack.check_stack()
