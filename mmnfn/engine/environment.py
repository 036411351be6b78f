"""What people paste into an issue."""

from __future__ import annotations

from importlib import metadata, util
from typing import Dict

from mmengine.utils.dl_utils import collect_env

from mmnfn.stack import installed_stacks
from mmnfn.version import __version__

from .provenance import source_revision

LIBRARIES = ('himalaya', 'nibabel', 'h5py', 'numpy', 'scipy', 'pycocotools', 'open_clip_torch', 'nilearn', 'grad-cam')


def collect_environment() -> Dict[str, str]:
    """Name → value: mmnfn and its git revision, the stack and its versions, whether mmcv has its operators, versions of
    other libraries, and what mmengine says of Python, PyTorch, compilers and GPUs.
    """
    lines: Dict[str, str] = {'mmnfn': __version__, 'Revision': str(source_revision())}
    for stack, versions in installed_stacks().items():
        if versions:
            lines[f'Stack: {stack}'] = ', '.join(f'{name} {version}' for name, version in versions.items())
    lines['mmcv.ops'] = 'there' if util.find_spec('mmcv._ext') else 'missing: detection and segmentation need them'
    for name in LIBRARIES:
        try:
            lines[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            lines[name] = 'not installed'
    facts = {str(name): str(value).strip() for name, value in collect_env().items()}
    facts.pop('numpy_random_seed', None)
    return {**lines, **facts}
