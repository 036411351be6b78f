"""Copies of the simulated release tree that a test may change."""

import os
import shutil

from mmnfn.nsd import NSDLayout

BETAS = 'nsddata_betas/ppdata/{}/func1pt8mm/betas_fithrf_GLMdenoise_RR/{}'
ROIS = 'nsddata/ppdata/{}/func1pt8mm/roi/{}.nii.gz'


def copy_tree(source, target):
    """A copy in which large files are links: replace them (:func:`overwrite`), do not write into them."""

    def link_or_copy(file, copy):
        (os.link if os.path.getsize(file) > 1_000_000 else shutil.copy2)(file, copy)

    shutil.copytree(source, target, copy_function=link_or_copy)
    return NSDLayout(target)


def remove(layout, *patterns):
    """Remove files and folders of a tree."""
    for pattern in patterns:
        found = sorted(layout.root.glob(pattern))
        assert found, pattern
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def overwrite(path, content):
    """Replace a file; returns its name."""
    path.unlink()
    path.write_bytes(content)
    return path.name
