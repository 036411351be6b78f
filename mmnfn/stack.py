"""Check that the OpenMMLab libraries which mmnfn cannot do without are there, and new enough.

The two stacks call their distributions differently (``mmcv`` or ``mmcv-lite``, ``onedl-mmcv``) and share the import
names, so ``install_requires`` cannot name them without breaking one of the stacks; this module looks instead.
MMDetection, MMSegmentation and ``mmcv.ops`` are for downstream tasks, and are not asked for here.
"""

from __future__ import annotations

from importlib import import_module, metadata, util
from typing import Dict, Optional

# Import name: first version that will do, first one that will not, the distributions that provide it.
REQUIRED = {
    'mmengine': ('0.10.0', '1.0.0', ('mmengine', 'mmengine-lite', 'onedl-mmengine')),
    'mmcv': ('2.0.0', '3.0.0', ('mmcv', 'mmcv-lite', 'onedl-mmcv')),
    'mmpretrain': ('1.2.0', '2.0.0', ('mmpretrain', 'onedl-mmpretrain')),
}

# Distributions of the two stacks that own the same files, by import name: official, OneDL.
TWINS = {
    'mmengine': (('mmengine', 'mmengine-lite'), 'onedl-mmengine'),
    'mmcv': (('mmcv', 'mmcv-lite'), 'onedl-mmcv'),
    'mmpretrain': (('mmpretrain',), 'onedl-mmpretrain'),
    'mmdet': (('mmdet',), 'onedl-mmdetection'),
    'mmseg': (('mmsegmentation',), 'onedl-mmsegmentation'),
}

WAY_OUT = (
    'run `make env` in the repository, or `pip install -U openmim` and `mim install mmengine "mmcv>=2.0.0" '
    '"mmpretrain>=1.2.0"` (on Python 3.12 and later `pip install onedl-mmengine onedl-mmcv onedl-mmpretrain`)'
)


def installed_version(name: str) -> Optional[str]:
    """Version of the package imported as ``name``, or None if there is none.

    MMPretrain is looked up and not imported: it takes seconds, and refuses unsuitable versions of the other two with
    an error of its own before this module could explain.
    """
    spec = util.find_spec(name)
    if spec is None or spec.origin is None:  # without origin: a folder of that name, as in a directory of checkouts
        return None
    for distribution in REQUIRED[name][2]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return import_module(name).__version__  # a checkout on the path, not installed


def installed_stacks() -> Dict[str, Dict[str, str]]:
    """``'official'`` and ``'OneDL'`` → distribution → version, of what is installed of each."""
    found: Dict[str, Dict[str, str]] = {'official': {}, 'OneDL': {}}
    for official, onedl in TWINS.values():
        for stack, distributions in (('official', official), ('OneDL', (onedl,))):
            for distribution in distributions:
                try:
                    found[stack][distribution] = metadata.version(distribution)
                except metadata.PackageNotFoundError:
                    continue
    return found


def check_stack() -> None:
    """Raise an ImportError that names the missing or unsuitable package, the version found and the way out; or the
    packages of two stacks that are mixed.
    """
    found = installed_stacks()
    if all(found.values()):
        names = {
            stack: ', '.join(f'{name} {version}' for name, version in versions.items())
            for stack, versions in found.items()
        }
        raise ImportError(
            f'two stacks of OpenMMLab libraries are mixed, official ({names["official"]}) and OneDL '
            f'({names["OneDL"]}). They own the same files and do not fit each other: uninstall all of both, and '
            f'install one; {WAY_OUT}.'
        )
    versions = {name: installed_version(name) for name in REQUIRED}
    for name, (minimum, maximum, _) in REQUIRED.items():
        if versions[name] is None:
            raise ImportError(
                f'mmnfn needs {name}>={minimum},<{maximum}, which is not installed: {WAY_OUT}.', name=name
            )

    from mmengine.utils import digit_version

    for name, (minimum, maximum, _) in REQUIRED.items():
        if not digit_version(minimum) <= digit_version(versions[name]) < digit_version(maximum):
            raise ImportError(
                f'mmnfn needs {name}>={minimum},<{maximum}, but {versions[name]} is installed: {WAY_OUT}.', name=name
            )
