"""Ways to damage a tree of ``nsd_tree``; each returns what the error must name."""

import shutil

import h5py
import nibabel as nib
import numpy as np
from nsd_tree import AFFINE, CLASSES, change_betas, change_volume, save_volume, to_nifti

from mmnfn.nsd import NSDLayout


class Files(NSDLayout):
    """The files that the preparation of subj02 (one session) reads."""

    @property
    def betas(self):
        return self.beta_file('subj02', 1)

    @property
    def nifti(self):
        if self.betas.exists():
            to_nifti(self, 'subj02')
        return self.beta_file('subj02', 1, 'nii.gz')

    def roi_of(self, name, subject='subj02'):
        return self.roi_file(subject, name)

    @property
    def words(self):
        return self.roi_of('floc-words')

    @property
    def table(self):
        return self.label_file('subj02', 'streams')

    @property
    def ncsnr(self):
        return self.beta_dir('subj02') / 'ncsnr.nii.gz'


def write(path, content):
    """Replace a file by text or bytes."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def gone(path):
    """Remove a file or folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return path


def folder(path):
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()
    return path


def volume(path, function):
    """Change the values of a volume."""
    change_volume(path, function)
    return path


def betas(path, function, **options):
    """Change the betas of a session, or how they are kept."""
    change_betas(path, function, **options)
    return path


def cut(path, length):
    """Keep the first bytes of a file; negative: all but the last."""
    return write(path, path.read_bytes()[:length])


def flip(path, place):
    """Change one byte of a file, at a fraction of its length."""
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x55
    return write(path, data)


def same(values):
    """The values as they are."""
    return values


def put(values, where, value):
    """``values`` with one or several of them replaced."""
    values[where] = value
    return values


def hdf5(path, make):
    """Write another HDF5 file."""
    with h5py.File(path, 'w') as file:
        make(file)
    return path


def group(file):
    """A group in the place of the dataset."""
    file.create_group('betas')['data'] = 1


def dangling(file):
    """A link to nothing in the place of the dataset."""
    file['betas'] = h5py.SoftLink('/nothing')


def other_sessions(tree, *numbers):
    """Copies of the session under other numbers."""
    for number in numbers:
        shutil.copy(tree.betas, tree.beta_file('subj02', number))
    return tree.betas.parent


def nifti(tree, function=same, slope=0, affine=AFFINE):
    """Keep the session as NIfTI only, changed."""
    values = function(np.asarray(nib.load(tree.nifti).dataobj))
    image = nib.Nifti1Image(values, affine)
    image.header['scl_slope'], image.header['scl_inter'] = slope, 0
    nib.save(image, tree.nifti)
    return tree.nifti


def moved(tree):
    """Give an ROI class another affine."""
    save_volume(tree.words, np.asarray(nib.load(tree.words).dataobj), AFFINE @ np.diag([1, 1, 1.1, 1]))
    return tree.words


def nowhere(tree):
    """Give an ROI class an affine of NaN."""
    image = nib.load(tree.words)
    image.header['srow_x'] = np.nan
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), tree.words)
    return tree.words


def oblique(tree):
    """Turn the volume about two axes, so that the affine is neither diagonal nor symmetric."""
    turn = np.eye(4)
    turn[:3, :3] = [[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]]
    for name in CLASSES:
        save_volume(tree.roi_of(name), np.asarray(nib.load(tree.roi_of(name)).dataobj), turn @ AFFINE)


def empty_rois(tree, value=-1.0):
    """No label in any class."""
    for name in CLASSES:
        change_volume(tree.roi_of(name), lambda values: values * 0 + value)
    return 'subj02 has no voxel in prf-visualrois, floc-words, streams'


def lines(path, function):
    """Change the lines of a label table."""
    path.write_text('\n'.join(function(path.read_text().splitlines())) + '\n')
    return path


def big_endian_volume(path):
    """The same volume, in the other byte order."""
    image = nib.load(path)
    header = image.header.as_byteswapped('>')
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, header), path)


def no_unused_label(tree):
    """Remove a label that no voxel has from the table of floc-words."""
    lines(tree.label_file('subj02', 'floc-words'), lambda found: [line for line in found if 'VWFA-1' not in line])
