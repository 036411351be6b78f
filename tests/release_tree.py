"""Copies of the simulated release tree that a test may change, and what is shared by the tests that do."""

import os
import shutil

from mmnfn.nsd import NSDLayout
from mmnfn.nsd.preparation import prepare_subject

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


def use_of(report, name, subject='', version='b3'):
    """A use in the report of an inspection."""
    (use,) = [use for use in report.uses if (use.name, use.subject) == (name, subject) and use.version in (version, '')]
    return use


def verdicts_are_those_of_the_preparation(layout, report, folder):
    """The report says that a ROI store can be made if and only if it can."""
    for subject in report.subjects:
        try:
            possible = bool(prepare_subject(layout, folder, subject.name, progress=False))
        except Exception:
            possible = False
        assert (use_of(report, 'ROI store', subject.name).answer == 'yes') == possible, subject.name
