"""Check that the OpenMMLab libraries which mmnfn cannot do without are there, and new enough.

The two stacks call their distributions differently (``mmcv`` or ``mmcv-lite``, ``onedl-mmcv``) and share the import
names, so ``install_requires`` cannot name them without breaking one of the stacks; this module looks instead.
MMDetection, MMSegmentation and ``mmcv.ops`` are for downstream tasks, and are not required here.
"""

from __future__ import annotations

from importlib import metadata
from typing import Dict

REQUIRED = {
    'mmengine': ('0.10.0', '1.0.0', ('mmengine', 'mmengine-lite', 'onedl-mmengine')),
    'mmcv': ('2.0.0', '3.0.0', ('mmcv', 'mmcv-lite', 'onedl-mmcv')),
    'mmpretrain': ('1.2.0', '2.0.0', ('mmpretrain', 'onedl-mmpretrain')),
}
"""Import name → first version that will do, first one that will not, the distributions that provide it."""
DOWNSTREAM = ('mmdet', 'onedl-mmdetection', 'mmsegmentation', 'onedl-mmsegmentation')
WAY_OUT = (
    'run `make env` in the repository, or `pip install -U openmim` and `mim install mmengine "mmcv>=2.0.0" '
    '"mmpretrain>=1.2.0"` (on Python 3.12 and later `pip install onedl-mmengine onedl-mmcv onedl-mmpretrain`)'
)


def installed_stacks() -> Dict[str, Dict[str, str]]:
    """Find what is installed of each stack: ``'official'`` and ``'OneDL'`` → distribution → version."""
    found: Dict[str, Dict[str, str]] = {'official': {}, 'OneDL': {}}
    for name in (*(name for *_, names in REQUIRED.values() for name in names), *DOWNSTREAM):
        try:
            found['OneDL' if name.startswith('onedl-') else 'official'][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_stack() -> None:
    """Raise an ImportError that names what is missing, unsuitable or mixed from both stacks, and the way out."""
    stacks = installed_stacks()
    if all(stacks.values()):
        official, onedl = (', '.join(f'{name} {version}' for name, version in s.items()) for s in stacks.values())
        raise ImportError(
            f'two stacks of OpenMMLab libraries are mixed, official ({official}) and OneDL ({onedl}). They own the '
            f'same files and do not fit each other: uninstall all of both, and install one; {WAY_OUT}.'
        )
    versions = {**stacks['official'], **stacks['OneDL']}
    for name, (minimum, maximum, distributions) in REQUIRED.items():
        version = next((versions[each] for each in distributions if each in versions), None)
        needed = f'mmnfn needs {name}>={minimum},<{maximum}'
        if version is None:
            raise ImportError(f'{needed}, which is not installed: {WAY_OUT}.', name=name)

        from mmengine.utils import digit_version

        if not digit_version(minimum) <= digit_version(version) < digit_version(maximum):
            raise ImportError(f'{needed}, but {version} is installed: {WAY_OUT}.', name=name)
