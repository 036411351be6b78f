"""Bad files in a release tree: the error names the file, and no store is left; legal oddities change nothing."""

import gzip
import shutil

import numpy as np
import pytest
from nsd_damage import (
    betas,
    big_endian_volume,
    cut,
    dangling,
    empty_rois,
    flip,
    folder,
    gone,
    group,
    hdf5,
    lines,
    moved,
    nifti,
    no_unused_label,
    nowhere,
    oblique,
    other_sessions,
    put,
    same,
    volume,
    write,
)
from nsd_tree import CLASSES, SHAPES, difference, read_hdf5, save_hdf5, save_volume, slow_store

from mmnfn.nsd.preparation import prepare_subject

SHAPE = SHAPES['subj02']

BAD = {
    **{f'betas of {n} bytes': lambda t, n=n: cut(t.betas, n) for n in (0, 7, 100, 3000, 100000, -1)},
    'betas missing': lambda t: gone(t.betas) and t.beta_dir('subj02'),
    'no folder of betas': lambda t: gone(t.beta_dir('subj02')),
    'betas are a folder': lambda t: folder(t.betas),
    'betas are text': lambda t: write(t.betas, 'nothing'),
    'betas have another name': lambda t: hdf5(t.betas, lambda file: file.create_dataset('beta', data=np.zeros(3))),
    'betas are a group': lambda t: hdf5(t.betas, group),
    'betas are a link to nothing': lambda t: hdf5(t.betas, dangling),
    'betas are a number': lambda t: hdf5(t.betas, lambda file: file.create_dataset('betas', data=3)),
    'betas are strings': lambda t: hdf5(t.betas, lambda file: file.create_dataset('betas', data=['a'])),
    'betas of another space': lambda t: betas(t.betas, lambda b: b[1:]),
    'betas lack a trial': lambda t: betas(t.betas, lambda b: b[..., 1:], chunks=(749, 1, 1, 1)),
    'betas in the order of NIfTI': lambda t: betas(t.betas, lambda b: b.T, chunks=(1, 1, 1, 750)),
    'betas of another subject': lambda t: shutil.copy(t.beta_file('subj01', 1), t.betas) and t.betas,
    **{f'betas are {d}': lambda t, d=d: betas(t.betas, same, dtype=d) for d in ('<f4', '<i4', '<u2', 'i1')},
    'session missing in the middle': lambda t: other_sessions(t, 3),
    'session above what the subject has': lambda t: other_sessions(t, *range(2, 42)),
    'session 0': lambda t: other_sessions(t, 0),
    'NIfTI betas cut': lambda t: cut(t.nifti, -300),
    'NIfTI betas cut in the head': lambda t: cut(t.nifti, 40),
    'NIfTI betas empty': lambda t: cut(t.nifti, 0),
    'NIfTI betas with a flipped byte': lambda t: flip(t.nifti, 0.7),
    'NIfTI betas with a flipped byte at the end': lambda t: flip(t.nifti, 0.999),
    'NIfTI betas go on': lambda t: write(t.nifti, t.nifti.read_bytes() + b'more'),
    'NIfTI betas go on in what is packed': lambda t: write(
        t.nifti, gzip.compress(gzip.decompress(t.nifti.read_bytes()) + b'more', 1)
    ),
    'NIfTI betas not packed': lambda t: write(t.nifti, b'\x5c\x01\x00\x00' * 100),
    'NIfTI betas of another space': lambda t: nifti(t, lambda b: b[:, 1:]),
    'NIfTI betas lack a trial': lambda t: nifti(t, lambda b: b[..., 1:]),
    'NIfTI betas are one volume': lambda t: nifti(t, lambda b: b[..., 0]),
    'NIfTI betas scaled': lambda t: nifti(t, slope=2),
    'NIfTI betas are float32': lambda t: nifti(t, lambda b: b.astype(np.float32)),
    'ROI missing': lambda t: gone(t.words),
    'ROI of another subject': lambda t: shutil.copy(t.roi_of('floc-words', 'subj01'), t.words) and t.words,
    'ROI of another shape': lambda t: save_volume(t.words, np.zeros((3, 4, 5))) or t.words,
    'ROI with time': lambda t: save_volume(t.words, np.zeros((*SHAPE, 2))) or t.words,
    'ROI elsewhere': moved,
    'ROI nowhere': nowhere,
    'ROI cut': lambda t: cut(t.words, -4),
    'ROI cut in the head': lambda t: cut(t.words, 30),
    'ROI empty file': lambda t: cut(t.words, 0),
    'ROI with a flipped byte': lambda t: flip(t.words, 0.5),
    'ROI with a flipped checksum': lambda t: flip(t.words, 0.97),
    'ROI not packed': lambda t: write(t.words, bytes(900)),
    'ROI is a folder': lambda t: folder(t.words),
    'ROI with NaN': lambda t: volume(t.words, lambda v: put(v, (1, 1, 1), np.nan)),
    'ROI with infinity': lambda t: volume(t.words, lambda v: put(v, (1, 1, 1), np.inf)),
    'ROI with fractions': lambda t: volume(t.words, lambda v: v * 0.5),
    'ROI with an unknown label': lambda t: volume(t.words, lambda v: put(v, (1, 1, 1), 6)),
    'ROI with label -2': lambda t: volume(t.words, lambda v: put(v, (1, 1, 1), -2)),
    'ROI with a huge label': lambda t: volume(t.words, lambda v: put(v, (1, 1, 1), 1e30)),
    'ROIs all -1': empty_rois,
    'ROIs all 0': lambda t: empty_rois(t, 0.0),
    'table missing': lambda t: gone(t.table),
    'table is a folder': lambda t: folder(t.table),
    'table lacks a label in use': lambda t: lines(t.table, lambda found: [x for x in found if x[0] != '3']) and t.table,
    'table of another class': lambda t: shutil.copy(t.label_file('subj02', 'floc-words'), t.table) and t.table,
    'table is garbage': lambda t: write(t.table, bytes(range(128, 255))),
    'table is empty': lambda t: write(t.table, ''),
    'table names nothing': lambda t: write(t.table, '0 Unknown\n'),
    'table has an index twice': lambda t: lines(t.table, lambda found: [*found, '3 again']),
    'table has an index without name': lambda t: lines(t.table, lambda found: [*found, '8']),
    'table has no index': lambda t: lines(t.table, lambda found: [*found, 'eight V8']),
}
NCSNR = {
    'ncsnr cut': lambda t: cut(t.ncsnr, -5),
    'ncsnr empty file': lambda t: cut(t.ncsnr, 0),
    'ncsnr with a flipped byte': lambda t: flip(t.ncsnr, 0.6),
    'ncsnr NaN everywhere': lambda t: volume(t.ncsnr, lambda v: v * np.float32(np.nan)),
    'ncsnr negative': lambda t: volume(t.ncsnr, lambda v: -v),
    'ncsnr negative in some voxels': lambda t: volume(t.ncsnr, lambda v: np.where(v > 0.5, -v, v)),
    'ncsnr infinite in some voxels': lambda t: volume(t.ncsnr, lambda v: np.where(v > 0.5, np.float32(np.inf), v)),
    'ncsnr infinite': lambda t: volume(t.ncsnr, lambda v: np.where(np.isnan(v), v, np.float32(np.inf))),
    'ncsnr in percent': lambda t: volume(t.ncsnr, lambda v: 100 * v**2 / (v**2 + np.float32(1 / 3))),
    'ncsnr of another shape': lambda t: volume(t.ncsnr, lambda v: v[1:]),
    'ncsnr of another subject': lambda t: shutil.copy(t.beta_dir('subj01') / 'ncsnr.nii.gz', t.ncsnr) and t.ncsnr,
}


@pytest.mark.parametrize('damage', [*BAD.values(), *NCSNR.values()], ids=[*BAD, *NCSNR])
def test_bad_files_are_named_and_nothing_is_left(tree, tmp_path, damage):
    named, store = damage(tree), tmp_path / 'store'
    with pytest.raises((ValueError, OSError)) as caught:
        prepare_subject(tree, store, 'subj02', CLASSES, progress=False)
    assert str(named) in str(caught.value)
    assert not store.exists() or not list(store.iterdir())


LEGAL = {
    'nothing': (True, lambda t: None),
    'betas big-endian': (True, lambda t: betas(t.betas, same, dtype='>i2')),
    'betas packed': (True, lambda t: betas(t.betas, same, compression='gzip')),
    'betas in other chunks': (True, lambda t: betas(t.betas, same, chunks=(1, 5, 4, 6))),
    'betas in no chunks': (True, lambda t: betas(t.betas, same, chunks=None)),
    'betas as NIfTI': (True, lambda t: t.nifti),
    'betas as NIfTI, scl_slope 1': (True, lambda t: nifti(t, slope=1)),
    'betas as NIfTI, big-endian': (True, lambda t: big_endian_volume(t.nifti)),
    'betas as HDF5 beside bad NIfTI': (True, lambda t: cut(t.nifti, 9) and save_hdf5(t.betas, read_hdf5(t.root / 'b'))),
    'ROI class without label': (False, lambda t: volume(t.words, lambda v: np.minimum(v, 0))),
    'ROI class all -1': (False, lambda t: volume(t.words, lambda v: v * 0 - 1)),
    'ROI as int16': (True, lambda t: volume(t.words, lambda v: v.astype(np.int16))),
    'ROI big-endian': (True, lambda t: big_endian_volume(t.words)),
    'ROI not quite whole': (True, lambda t: volume(t.words, lambda v: v + 1e-4)),
    'ROIs in an oblique volume': (False, oblique),
    'ncsnr NaN in some voxels': (False, lambda t: volume(t.ncsnr, lambda v: put(v, slice(0, 3), np.nan))),
    'ncsnr huge in one voxel': (False, lambda t: volume(t.ncsnr, lambda v: put(v, (0, 0, 0), 99))),
    'ncsnr 0 in some voxels': (False, lambda t: volume(t.ncsnr, lambda v: put(v, slice(0, 3), 0))),
    'table lacks a label not in use': (True, no_unused_label),
    'table has more labels': (True, lambda t: lines(t.table, lambda found: [*found, '9 none', '', '10 none\t\t'])),
    'valid maps missing': (True, lambda t: gone(t.valid_file('subj02', 1))),
    'another subject has no betas': (True, lambda t: gone(t.beta_dir('subj01'))),
    'another subject incomplete': (True, lambda t: cut(t.beta_file('subj01', 2), 9)),
}


@pytest.mark.filterwarnings('ignore:.*this copy is read a slower way:UserWarning')
@pytest.mark.parametrize('unchanged, change', LEGAL.values(), ids=LEGAL)
def test_legal_oddities(tiny, tree, tmp_path, unchanged, change):
    shutil.copy(tree.betas, tree.root / 'b')
    change(tree)
    path = prepare_subject(tree, tmp_path / 'store', 'subj02', CLASSES, progress=False)
    assert difference(path, slow_store(tree.root, 'subj02')) == ''
    if unchanged:
        assert difference(path, slow_store(tiny.root, 'subj02')) == ''
    assert [file.name for file in path.parent.iterdir()] == ['subj02.h5']
