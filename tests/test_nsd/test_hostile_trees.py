"""A release tree with any bytes changed: the store is right, or the error names a file of the tree."""

import gzip
import shutil

import pytest
from child import in_child
from hypothesis import HealthCheck, example, given, settings, strategies as st
from nsd_damage import Files
from nsd_tree import CLASSES, difference, slow_store, to_nifti, write_tree

from mmnfn.nsd.preparation import prepare_subject

ROIS = (*CLASSES, 'nsdgeneral')
FILES = {
    'hdf5': 'nsddata_betas/ppdata/subj02/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5',
    'nifti': 'nsddata_betas/ppdata/subj02/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.nii.gz',
    'roi': 'nsddata/ppdata/subj02/func1pt8mm/roi/floc-words.nii.gz',
    'nsdgeneral': 'nsddata/ppdata/subj02/func1pt8mm/roi/nsdgeneral.nii.gz',
    'table': 'nsddata/freesurfer/subj02/label/streams.mgz.ctab',
    'ncsnr': 'nsddata_betas/ppdata/subj02/func1pt8mm/betas_fithrf_GLMdenoise_RR/ncsnr.nii.gz',
    'design': 'nsddata/experiments/nsd/nsd_expdesign.mat',
    'responses': 'nsddata/ppdata/subj02/behav/responses.tsv',
}


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    """Two trees to be damaged and repaired, with betas as HDF5 and as NIfTI."""
    found = {}
    for kind in ('hdf5', 'nifti'):
        found[kind] = Files(write_tree(tmp_path_factory.mktemp(kind) / 'nsd').root)
    for subject in ('subj01', 'subj02'):
        to_nifti(found['nifti'], subject)
    return found


def mutate(data, changes):
    """Change bytes: what, at which fraction of the file or byte of its head, how many, and by what."""
    data = bytearray(data)
    for what, place, count, content in changes:
        at = min(int(place * len(data)) if isinstance(place, float) else place, max(0, len(data) - 1))
        if what == 'flip' and data:
            data[at] ^= 1 << count % 8
        elif what == 'insert':
            data[at:at] = (content * count)[:count]
        elif what == 'replace':
            data[at : at + count] = (content * count)[: len(data[at : at + count])]
        elif what == 'delete':
            del data[at : at + count]
        elif what == 'zero':
            data[at : at + count] = bytes(len(data[at : at + count]))
        elif what == 'cut':
            del data[at:]
        elif what == 'append':
            data += (content * count)[:count]
    return bytes(data)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(['flip', 'insert', 'replace', 'delete', 'zero', 'cut', 'append']),
        st.one_of(st.integers(0, 700), st.floats(0, 0.999)),
        st.integers(1, 64) | st.integers(65, 5000),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=3,
)


def outcome(layout, store):
    """What comes of a tree: an error and what it says, or how the store differs from what the slow reader finds."""
    try:
        path = prepare_subject(layout, store, 'subj02', ROIS, progress=False)
    except (ValueError, OSError) as error:
        return 'refused', str(error)
    return 'made', difference(path, slow_store(layout.root, 'subj02', ROIS))


@settings(max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(FILES)), inside=st.booleans(), changes=CHANGES)
@example('hdf5', False, [('insert', 0.8, 1, b'\0')])  # a small deviation from a large mean, in float32
@example('roi', True, [('cut', 201, 1, b'0')])  # nibabel's WrapStructError
@example('roi', True, [('replace', 70, 2, b'\x80\0')])  # colours
@example('nsdgeneral', True, [('replace', 0.5, 8, b'\0\0\0\0\0\0\xe0C')])  # label 2**63 without a table
@example('table', False, [('insert', 0, 3, b'\xc2\xb2 ')])  # a digit that is no number
@example('ncsnr', True, [('replace', 0.5, 400, b'\xec\x78\xad\x60')])  # 1e20, whose square is too large for float32
def test_any_bytes_changed(trees, tmp_path_factory, name, inside, changes):
    """``inside``: within what gzip packed, so that its checksum is right."""
    layout, store = trees['nifti' if name == 'nifti' else 'hdf5'], tmp_path_factory.getbasetemp() / 'hostile'
    path = layout.root / FILES[name]
    original = path.read_bytes()
    inside = inside and path.suffix == '.gz'
    try:
        changed = mutate(gzip.decompress(original) if inside else original, changes)
        path.write_bytes(gzip.compress(changed, 1) if inside else changed)
        result, ended = in_child(outcome, layout, store)
    finally:
        path.write_bytes(original)
        left = [file.name for file in store.iterdir()] if store.exists() else []
        shutil.rmtree(store, ignore_errors=True)
    assert ended == 0 and isinstance(result, tuple), (ended, result)
    how, text = result
    assert (how, left) in (('made', ['subj02.h5']), ('refused', [])), (how, left)
    assert (str(layout.root) in text) if how == 'refused' else (text == ''), text


@pytest.mark.parametrize('kind', ['hdf5', 'nifti'])
def test_the_trees_are_right_when_nothing_is_changed(trees, tmp_path, kind):
    """Else the test above would be content with errors."""
    assert outcome(trees[kind], tmp_path / 'store') == ('made', '')
    assert all((trees['nifti' if name == 'nifti' else 'hdf5'].root / path).exists() for name, path in FILES.items())
