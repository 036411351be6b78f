"""The check of the OpenMMLab libraries at import."""

import subprocess
import sys

import pytest

from mmnfn import stack

SUITABLE = {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmpretrain': '1.2.0', 'mmsegmentation': '1.2.2'}
ONEDL = {'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmpretrain': '1.3.6'}


def pretend(monkeypatch, installed):
    """Let these distributions be installed, and no others."""

    def version(distribution):
        if distribution not in installed:
            raise stack.metadata.PackageNotFoundError(distribution)
        return installed[distribution]

    monkeypatch.setattr(stack.metadata, 'version', version)


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


@pytest.mark.parametrize('installed', [SUITABLE, ONEDL, {**SUITABLE, 'mmcv-lite': '2.1.0'}])
def test_either_stack_is_suitable(monkeypatch, installed):
    pretend(monkeypatch, installed)
    stack.check_stack()


@pytest.mark.parametrize(
    'name, version, message',
    [
        ('mmengine', None, 'needs mmengine>=0.10.0,<1.0.0, which is not installed: run `make env`'),
        ('mmcv', '2.0.0rc4', 'needs mmcv>=.*2.0.0rc4 is installed'),
        ('mmpretrain', '2.0.0', 'needs mmpretrain>=.*2.0.0 is installed'),
    ],
)
def test_missing_and_unsuitable_libraries_are_named(monkeypatch, name, version, message):
    installed = {each: found for each, found in {**SUITABLE, name: version}.items() if found}
    pretend(monkeypatch, installed)
    with pytest.raises(ImportError, match=message) as error:
        stack.check_stack()
    assert error.value.name == name


def test_mixed_stacks_are_named(monkeypatch):
    pretend(monkeypatch, {'mmengine': '0.10.7', 'mmsegmentation': '1.2.2', 'onedl-mmcv': '2.3.6'})
    words = r'mixed, official \(mmengine 0.10.7, mmsegmentation 1.2.2\) and OneDL \(onedl-mmcv 2.3.6\).*make env'
    with pytest.raises(ImportError, match=words):
        stack.check_stack()
