"""Bad Algonauts 2023 data: the error names it, and nothing is left."""

import shutil

import numpy as np
import pytest
from algonauts_tree import change, picture, write_stim_info, write_tree
from PIL import Image

from mmnfn.nsd.algonauts import HEMISPHERES, AlgonautsLayout
from mmnfn.nsd.algonauts_preparation import SplitRule, prepare, prepare_images, prepare_subject
from mmnfn.nsd.release import ROI_CLASSES


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp('algonauts') / 'data')


@pytest.fixture()
def copy(tree, tmp_path):
    """A copy of the tree that a test may damage."""
    return AlgonautsLayout(shutil.copytree(tree, tmp_path / 'data'))


def damage_no_mask(layout):
    layout.roi_file('subj01', 'rh', 'floc-words').unlink()
    return 'rh.floc-words_challenge_space.npy does not exist'


def damage_no_map(layout):
    layout.vertex_file('subj01', 'lh').unlink()
    return 'lh.all-vertices_fsaverage_space.npy does not exist'


def damage_no_mapping(layout):
    layout.mapping_file('subj01', 'floc-places').unlink()
    return 'mapping_floc-places.npy does not exist'


def damage_no_responses(layout):
    layout.response_file('subj01', 'rh').unlink()
    return 'rh_training_fmri.npy does not exist'


def damage_no_image_dir(layout):
    shutil.rmtree(layout.image_dir('subj01'))
    return 'training_images does not exist'


def damage_no_images(layout):
    shutil.rmtree(layout.image_dir('subj01'))
    layout.image_dir('subj01').mkdir()
    return 'training_images holds no picture'


def damage_dimensions(layout):
    return change(layout.response_file('subj01', 'lh'), lambda a: a[..., None]) + '.*expected 2 dim'


def damage_integer_responses(layout):
    return change(layout.response_file('subj01', 'lh'), lambda a: a.astype(int)) + ' holds int64'


def damage_vertices_of_responses(layout):
    return change(layout.response_file('subj01', 'rh'), lambda a: a[:, 1:]) + ' has 130 vertices.*marks 131'


def damage_vertices_of_mask(layout):
    return change(layout.roi_file('subj01', 'lh', 'streams'), lambda a: a[1:]) + ' has 119 vertices.* has 120'


def damage_vertices_of_map(layout):
    return change(layout.vertex_file('subj01', 'lh'), lambda a: np.r_[a, 1])


def damage_surface_of_map(layout):
    change(layout.vertex_file('subj01', 'lh'), lambda a: np.r_[a, 0])
    return 'lh.white has 300 vertices.* 301'


def damage_surface(layout):
    (layout.root / 'fsaverage/rh.white').write_bytes(b'nothing')
    return 'rh.white cannot be read'


def damage_rows(layout):
    return change(layout.response_file('subj01', 'rh'), lambda a: a[1:]) + ' has 39 rows.* has 40 pictures'


def damage_nan(layout):
    def spoil(a):
        mask = np.load(layout.roi_file('subj01', 'lh', 'streams'))
        a[7, np.flatnonzero(mask)[0]] = np.nan
        return a

    return change(layout.response_file('subj01', 'lh'), spoil) + '.* not finite, the first is nan in row 8'


def damage_truncated(layout):
    path = layout.response_file('subj01', 'lh')
    path.write_bytes(path.read_bytes()[:-9])
    return path.name


def damage_no_npy(layout):
    layout.roi_file('subj01', 'lh', 'streams').write_text('nothing')
    return 'lh.streams_challenge_space.npy'


def damage_pickled_mask(layout):
    np.save(layout.roi_file('subj01', 'lh', 'streams'), np.asarray([{}], object), allow_pickle=True)
    return 'lh.streams_challenge_space.npy'


def damage_label(layout):
    return change(layout.roi_file('subj01', 'lh', 'floc-places'), lambda a: a + 1) + r' holds \[4\]'


def damage_fractions(layout):
    return change(layout.roi_file('subj01', 'lh', 'floc-places'), lambda a: a * 0.5) + r' holds \[0.5'


def damage_mapping(layout):
    shutil.copy(layout.mapping_file('subj01', 'streams'), layout.mapping_file('subj01', 'floc-words'))
    return 'mapping_floc-words.npy does not fit floc-words'


def damage_mapping_runs_something(layout):
    path = layout.mapping_file('subj01', 'streams')
    np.save(path, np.asarray(print, object), allow_pickle=True)
    return 'mapping_streams.npy .* is refused: it asks for (builtins|__builtin__).print'


def damage_mapping_zero(layout):
    np.save(layout.mapping_file('subj01', 'floc-places'), {0: 'OPA', 1: 'PPA', 2: 'RSC'})
    return 'mapping_floc-places.npy does not fit'


def damage_mapping_types(layout):
    np.save(layout.mapping_file('subj01', 'floc-places'), {'OPA': 1})
    return 'mapping_floc-places.npy must map whole numbers to names'


def damage_empty_masks(layout):
    for hemisphere in HEMISPHERES:
        for name in ROI_CLASSES:
            change(layout.roi_file('subj01', hemisphere, name), lambda a: a * 0)
    return 'no vertex'


def rename(layout, old, new):
    path = next(layout.image_dir('subj01').glob(old))
    path.rename(path.with_name(new.format(id=path.name[-9:-4])))


def damage_name(layout):
    rename(layout, 'train-0003_*', 'train-0003_coco-00013.png')
    return 'train-0003_coco-00013.png does not look like'


def damage_row_missing(layout):
    rename(layout, 'train-0003_*', 'train-0041_nsd-{id}.png')
    return r'lacks 1 row\(s\), the first is 3'


def damage_row_zero(layout):
    next(layout.image_dir('subj01').glob('train-0040_*')).unlink()
    (layout.image_dir('subj01') / 'train-0000_nsd-00099.png').touch()
    return 'has a row 0'


def damage_row_twice(layout):
    (layout.image_dir('subj01') / 'train-0003_nsd-00099.png').touch()
    return 'row 3 has two files'


def damage_image_twice(layout):
    other = next(layout.image_dir('subj01').glob('train-0004_*')).name[-9:-4]
    rename(layout, 'train-0003_*', f'train-0003_nsd-{other}.png')
    return f'nsd id {int(other)} stands in 2 rows'


@pytest.mark.parametrize('damage', [f for n, f in sorted(globals().items()) if n.startswith('damage_')])
def test_bad_input_is_named_and_nothing_is_left(copy, damage, tmp_path):
    named = damage(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        prepare_subject(copy, tmp_path / 'store', 'subj01', copy.root / 'fsaverage', progress=False)
    assert not (tmp_path / 'store').exists() or list((tmp_path / 'store').iterdir()) == []


@pytest.mark.parametrize(
    'content, named',
    [(b'', 'cannot be read'), (b'no picture', 'cannot be read'), ('cut', 'cannot be read'), ('wide', '64x32 pixels')],
)
def test_bad_pictures_are_named_and_nothing_is_left(copy, tmp_path, content, named):
    path = next(copy.image_dir('subj06').glob('train-0002_*'))
    if content == 'cut':
        content = path.read_bytes()[:-2000]
    elif content == 'wide':
        Image.fromarray(picture(3)[:32]).save(path)
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{path.name} .*{named}'):
        prepare_images(copy, tmp_path / 'store', ['subj06'], 32, progress=False)
    assert list((tmp_path / 'store').iterdir()) == []


def test_wrong_arguments(tree, tmp_path):
    layout = AlgonautsLayout(tree)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        AlgonautsLayout(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no subj0N/training_split'):
        AlgonautsLayout(tree / 'subj01')
    with pytest.raises(FileNotFoundError, match='subj02.*subj01, subj06'):
        prepare(layout, tmp_path, ['subj02'], tree / 'fsaverage', progress=False)
    for rule, named in (
        (SplitRule(fraction=0), 'test-fraction is 0'),
        (SplitRule(fraction=1.5), 'test-fraction is 1.5'),
        (SplitRule(seed=-1), 'seed is -1'),
        (SplitRule(fraction=1e-9), 'gives 0 test and 40 training images'),
    ):
        with pytest.raises(ValueError, match=named):
            prepare(layout, tmp_path, ['subj01'], tree / 'fsaverage', rule, progress=False)
    with pytest.raises(ValueError, match='image-size is 3'):
        prepare(layout, tmp_path, ['subj01'], tree / 'fsaverage', image_size=3, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_does_not_fit(tree, tmp_path):
    table = write_stim_info(tmp_path / 'table.csv')
    lines = table.read_text().splitlines()
    for content, named in (
        ('\n'.join(line for line in lines if 'nsdId' in line or int(line.split(',')[3]) < 30), 'has no nsdId'),
        ('\n'.join(lines[:30]), 'nsdId goes from 2 to 99; NSD counts its 29 stimuli from 0 to 28'),
        (table.read_text().replace('shared1000', 'shared'), r'lacks the column\(s\) shared1000'),
        (table.read_text().replace('True', 'False'), 'gives 0 test and 40 training'),
        ('\n'.join([*lines, lines[-1]]), 'nsdId goes from .*, each once'),
    ):
        table.write_text(content)
        with pytest.raises(ValueError, match=named):
            prepare_subject(AlgonautsLayout(tree), tmp_path, 'subj01', tree / 'fsaverage', SplitRule(table), False)
    with pytest.raises(FileNotFoundError, match='none.csv'):
        SplitRule(tmp_path / 'none.csv').is_test(np.arange(5))
