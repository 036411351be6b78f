"""Ways to change the files of a tree of ``nsd_tree``; each returns the path that an error must name."""

import shutil

import nibabel as nib
import numpy as np
from nsd_tree import CLASSES, read_hdf5, save_hdf5, save_volume, to_nifti

from mmnfn.nsd import NSDLayout


class Files(NSDLayout):
    """The files that the preparation of subj02 (one session) reads."""

    @property
    def betas(self):
        return self.beta_file('subj02', 1)

    @property
    def nifti(self):
        """The session, kept as NIfTI only."""
        if self.betas.exists():
            to_nifti(self, 'subj02')
        return self.beta_file('subj02', 1, 'nii.gz')

    @property
    def words(self):
        return self.roi_file('subj02', 'floc-words')

    @property
    def left(self):
        return self.roi_file('subj02', 'lh.floc-words')

    @property
    def table(self):
        return self.label_file('subj02', 'streams')

    @property
    def ncsnr(self):
        return self.ncsnr_file('subj02')


def write(path, content):
    """Replace a file by text or bytes."""
    path.unlink(missing_ok=True)  # it may be a link to the original
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def gone(path):
    """Remove a file or folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path


def copy(source, path):
    """Put another file in the place of a file."""
    shutil.copy(source, path)
    return path


def volume(path, function):
    """Change the values of a volume."""
    image = nib.load(path)
    save_volume(path, function(np.asarray(image.dataobj).copy()), image.affine)
    return path


def betas(path, function=lambda values: values, **options):
    """Change the betas of a session, or how they are kept."""
    save_hdf5(path, function(read_hdf5(path)), **options)
    return path


def cut(path, length):
    """Keep the first bytes of a file; negative: all but the last."""
    return write(path, path.read_bytes()[:length])


def flip(path, place):
    """Change one byte of a file, at a fraction of its length."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x55
    return write(path, data)


def put(values, where, value):
    """``values`` with one or several of them replaced."""
    values[where] = value
    return values


def other_sessions(tree, *numbers):
    """Copies of the session under other numbers."""
    for number in numbers:
        shutil.copy(tree.betas, tree.beta_file('subj02', number))
    return tree.betas.parent


def nifti(tree, function=lambda values: values, slope=0):
    """Keep the session as NIfTI only, changed."""
    image = nib.load(tree.nifti)
    changed = nib.Nifti1Image(function(np.asarray(image.dataobj)), image.affine)
    changed.header['scl_slope'], changed.header['scl_inter'] = slope, 0
    nib.save(changed, tree.nifti)
    return tree.nifti


def moved(path, transform):
    """Multiply the affine of a volume by another one."""
    image = nib.load(path)
    save_volume(path, np.asarray(image.dataobj), np.asarray(transform) @ image.affine)
    return path


def oblique(tree):
    """Turn the volume about two axes, so that the affine is neither diagonal nor symmetric."""
    turn = [[0.8, -0.6, 0, 0], [0.48, 0.64, -0.6, 0], [0.36, 0.48, 0.8, 0], [0, 0, 0, 1]]
    for path in (tree.anatomy_dir('subj02') / 'roi').iterdir():
        moved(path, turn)


def empty_rois(tree):
    """No label in any class."""
    for name in CLASSES:
        volume(tree.roi_file('subj02', name), lambda values: values * 0)
    return 'subj02 has no voxel in prf-visualrois, floc-words, streams'


def lines(path, function):
    """Change the lines of a text file."""
    path.write_text('\n'.join(function(path.read_text().splitlines())) + '\n')
    return path
