"""The files of the simulated world have NSD's layout, and their numbers agree with truth.h5."""

import hashlib
import json
import resource

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.io
from child import in_child
from PIL import Image
from pycocotools.coco import COCO

from mmnfn.nsd.design import read_design
from mmnfn.nsd.release import NSDLayout
from mmnfn.simulation.scenes import THING_CLASSES
from mmnfn.simulation.world import WorldConfig, simulate


@pytest.fixture(scope='module')
def layout(world):
    return NSDLayout(world / 'nsd')


@pytest.fixture(scope='module')
def truth(world):
    with h5py.File(world / 'truth.h5') as file:
        yield file


def betas_of(layout, subject, session):
    with h5py.File(layout.beta_file(subject, session)) as file:
        return file['betas'][()]


def test_beta_files(layout):
    shape = nib.load(layout.roi_file('subj01', 'streams')).shape
    with h5py.File(layout.beta_file('subj01', 2)) as file:
        betas = file['betas']
        assert betas.shape == (750,) + shape[::-1] and betas.dtype == np.int16
        assert betas.chunks == (750, 1, 1, 1) and betas.compression is None


def test_design_files(layout, world):
    mat = scipy.io.loadmat(layout.design_file)
    assert mat['masterordering'].shape == (1, 1500) and mat['subjectim'].shape == (2, 500)
    with h5py.File(layout.stimuli_file) as file:
        assert file['imgBrick'].shape == (950, 64, 64, 3) and file['imgBrick'].dtype == np.uint8
    for subject, sessions in (('subj01', 2), ('subj02', 1)):
        image_id, is_shared = read_design(layout.design_file).trials(subject, sessions)
        behaviour = pd.read_csv(layout.responses_file(subject), sep='\t')
        assert len(behaviour) == 750 * sessions and layout.sessions(subject) == list(range(1, sessions + 1))
        assert (behaviour['73KID'] - 1 == image_id).all()
        info = pd.read_csv(layout.stim_info_file)
        shared = info.nsdId[info.shared1000].to_numpy()
        assert (np.isin(image_id, shared) == is_shared).all()


def test_voxels_without_data_are_zero_and_marked(layout, truth):
    invalid = truth['subj01']['invalid'][()]
    voxel = truth['subj01']['voxel'][()]
    assert invalid.any() and not invalid.all(0).any()
    for session in (1, 2):
        betas = betas_of(layout, 'subj01', session)
        valid = np.asarray(nib.load(layout.valid_file('subj01', session)).dataobj)
        x, y, z = voxel[invalid[session - 1]].T
        assert (betas[:, z, y, x] == 0).all() and (valid[x, y, z] == 0).all()
        x, y, z = voxel[~invalid[session - 1]].T
        assert betas[:, z, y, x].std(0).min() > 0 and (valid[x, y, z] == 1).all()
        brain = np.asarray(nib.load(layout.anatomy_dir('subj01') / 'brainmask.nii.gz').dataobj).T > 0
        assert (betas[:, ~brain] == 0).all()


def test_strong_voxels_saturate_and_no_others(layout, truth):
    strong = truth['subj01']['deviation'][()] > 20
    x, y, z = truth['subj01']['voxel'][()].T
    betas = np.stack([betas_of(layout, 'subj01', session)[:, z, y, x] for session in (1, 2)])
    clipped = (betas == 32767) | (betas == -32768)
    assert 0 < strong.mean() < 0.02 and clipped[..., strong].any((0, 1)).all() and not clipped[..., ~strong].any()


def test_noise_is_what_ncsnr_says(layout, truth):
    """The ncsnr estimated from noisy repeats agrees with the drawn one."""
    group = truth['subj01']
    x, y, z = group['voxel'][()].T
    estimated = np.asarray(nib.load(layout.beta_dir('subj01') / 'ncsnr.nii.gz').dataobj)
    good = ~group['invalid'][()].any(0) & (group['deviation'][()] < 20)
    drawn = group['ncsnr'][()][good]
    assert np.corrcoef(estimated[x, y, z][good], drawn)[0, 1] > 0.8
    assert np.median(estimated[x, y, z][good]) == pytest.approx(np.median(drawn), rel=0.1)
    assert np.isnan(estimated[0, 0, 0])
    ceiling = 100 * drawn**2 / (drawn**2 + 1 / 3)
    assert np.allclose(group['noise_ceiling_n3'][()][good], ceiling)


def test_the_same_seed_gives_identical_files(tmp_path):
    """And NIfTI files hold the same betas."""
    config = WorldConfig(1, 1, seed=5, voxel_mm=8.0, stimulus_size=32, nifti=True, workers=1)
    config = config._replace(downstream=(1, 1, 1, 1), downstream_size=32)

    def digests(name, **changes):
        simulate(tmp_path / name, config._replace(**changes))
        files = sorted(p for p in (tmp_path / name).rglob('*') if p.is_file())
        return {str(p.relative_to(tmp_path / name)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    first = digests('a')
    assert first == digests('b')
    other = digests('c', seed=6)
    beta = next(name for name in first if name.endswith('session01.hdf5'))
    assert first.keys() == other.keys() and first[beta] != other[beta]
    layout = NSDLayout(tmp_path / 'a/nsd')
    nifti = nib.load(layout.beta_file('subj01', 1, 'nii.gz'))
    assert nifti.get_data_dtype() == np.int16
    assert (np.asarray(nifti.dataobj).T == betas_of(layout, 'subj01', 1)).all()


def test_coco_layout(world):
    for split, count in (('train2017', 6), ('val2017', 4)):
        coco = COCO(str(world / f'coco/annotations/instances_{split}.json'))
        assert len(coco.imgs) == count and [c['name'] for c in coco.cats.values()] == list(THING_CLASSES)
        for annotation in coco.anns.values():
            mask = coco.annToMask(annotation)
            assert mask.sum() == pytest.approx(annotation['area'], rel=0.25, abs=30)
        for image in coco.imgs.values():
            assert Image.open(world / 'coco' / split / image['file_name']).size == (96, 96)
    files = [world / f'coco_stimuli/annotations/instances_{split}.json' for split in ('train2017', 'val2017')]
    stimuli = {image['id'] for path in files for image in json.loads(path.read_text())['images']}
    info = pd.read_csv(NSDLayout(world / 'nsd').stim_info_file)
    assert set(info.cocoId) == stimuli and len(stimuli) == 950
    assert not stimuli & set(coco.imgs), 'the downstream scenes are others'


def test_ade_layout(world):
    for split, count in (('training', 5), ('validation', 3)):
        labels = sorted((world / 'ADEChallengeData2016/annotations' / split).glob('*.png'))
        assert len(labels) == count
        for path in labels:
            values = np.asarray(Image.open(path))
            assert values.shape == (96, 96) and values.min() >= 1 and values.max() <= 17
            assert (world / 'ADEChallengeData2016/images' / split / f'{path.stem}.jpg').is_file()


def write_photographs(folder, count):
    """Write photographs of noise, each with one dog."""
    images = [dict(id=7 * k + 1, width=80, height=60, file_name=f'{k}.png') for k in range(count)]
    dog = dict(category_id=1, bbox=[9, 9, 20, 20], area=400, iscrowd=0, segmentation=[[9, 9, 29, 9, 29, 29, 9, 29]])
    annotations = [dict(dog, id=k, image_id=image['id']) for k, image in enumerate(images)]
    (folder / 'images').mkdir()
    for k, image in enumerate(images):
        noise = np.random.default_rng(k).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(noise).save(folder / 'images' / image['file_name'])
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='dog', supercategory='animal')])
    (folder / 'instances.json').write_text(json.dumps(content))
    return dict(images=folder / 'images', annotations=folder / 'instances.json')


def test_photographs_as_stimuli_keep_their_crops_in_one_split(tmp_path):
    config = WorldConfig(1, 1, voxel_mm=8.0, stimulus_size=32, workers=1, **write_photographs(tmp_path, 20))
    simulate(tmp_path / 'out', config)
    info = pd.read_csv(NSDLayout(tmp_path / 'out/nsd').stim_info_file)
    shared, other = (info[info.shared1000 == value] for value in (True, False))
    assert (len(shared), len(other)) == (25, 225)
    assert (shared.cocoId.nunique(), other.cocoId.nunique()) == (2, 18), 'a tenth, like the stimuli'
    assert not set(shared.cocoId) & set(other.cocoId) and set(info.cocoSplit) == {'train2017'}
    with h5py.File(NSDLayout(tmp_path / 'out/nsd').stimuli_file) as file:
        assert file['imgBrick'][()].std((1, 2, 3)).min() > 5
    box = np.asarray([json.loads(b.replace('(', '[').replace(')', ']')) for b in info.cropBox])
    assert box.min() >= 0 and (box[:, 0] + box[:, 1] < 1).all()


@pytest.mark.parametrize(
    'changes, named',
    [
        (dict(subjects=9), 'subjects is 9'),
        (dict(sessions=(1, 1, 1)), 'sessions'),
        (dict(voxel_mm=0.5), 'voxel_mm'),
        (dict(beta_version='b9'), 'b9'),
        (dict(images='x'), 'images and annotations'),
        (dict(downstream=(-1, 0, 0, 0)), 'downstream'),
    ],
)
def test_values_out_of_range_are_named(changes, named, tmp_path):
    config = WorldConfig(subjects=2)._replace(**changes)
    with pytest.raises(ValueError, match=named):
        simulate(tmp_path / 'out', config)
    assert list(tmp_path.iterdir()) == []


def too_large(out, limit):
    """Simulate with a limit to the size of files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    small = dict(voxel_mm=8.0, stimulus_size=32, downstream=(1, 0, 1, 0), downstream_size=64)
    simulate(out, WorldConfig(1, (1,), workers=1, **small), overwrite=True)


def test_a_full_disk_leaves_the_old_world(tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/old').write_text('old')
    error, ended = in_child(too_large, tmp_path / 'out', 5_000_000)  # too small for the betas
    assert ended == 0 and isinstance(error, OSError) and 'File too large' in str(error), error
    assert str(tmp_path) in str(error)
    assert [path.name for path in tmp_path.rglob('*')] == ['out', 'old']
    assert in_child(too_large, tmp_path / 'out', resource.RLIM_INFINITY) == (None, 0)
    assert not (tmp_path / 'out/old').exists() and (tmp_path / 'out/truth.h5').is_file()
    assert list(tmp_path.iterdir()) == [tmp_path / 'out']


def test_wrong_paths_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no_folder'):
        simulate(tmp_path / 'out', WorldConfig(images=tmp_path / 'no_folder', annotations=tmp_path / 'a.json'))
    assert not list(tmp_path.glob('out*'))
    (tmp_path / 'old').mkdir()
    with pytest.raises(FileExistsError, match='old'):
        simulate(tmp_path / 'old', WorldConfig())
