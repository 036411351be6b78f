"""What a wheel holds, that it works without PyTorch and in another project, and what the model index says."""

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from algonauts_tree import write_stim_info
from mmengine.config import Config
from nsd_tree import CLASSES

import mmnfn
from mmnfn.engine.checkpoint import export_random

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / 'examples/retinanet/retinanet_nfn-swin-s_fpn_1x_coco.py'
METAFILES = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
SCIENTIFIC = ('numpy', 'h5py', 'nibabel', 'scipy', 'pandas', 'tqdm')
THEIRS = ('python-dateutil', 'pytz', 'tzdata', 'six', 'packaging', 'importlib-resources', 'zipp', 'typing-extensions')


SMALL = """
# The example made small: a micro Swin and the simulated world's COCO layout.
_base_ = {example!r}
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **{arch!r}), img_size=64, window_size=4, drop_path_rate=0.0
    ),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(num_classes=10),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='PackDetInputs'),
]
dataset = dict(
    data_root={root!r},
    metainfo=dict(classes=('face', 'body', 'word', 'animal', 'car', 'chair', 'cup', 'ball', 'tree', 'house')),
    pipeline=pipeline,
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
val_evaluator = dict(ann_file={root!r} + 'annotations/instances_val2017.json')
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The package as pip installs it."""
    out = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', out, 'bdist_wheel', '-d', out / 'dist']
    subprocess.run(command, cwd=ROOT, check=True)
    return next((out / 'dist').glob('mmnfn-*.whl'))


@pytest.fixture(scope='module')
def bare(wheel, tmp_path_factory):
    """Run a command of a Python that has the wheel and the scientific libraries, but no PyTorch and no mmengine."""
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    pip = [sys.executable, '-m', 'pip', '-q', '--python', folder / 'bin/python']
    alone = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    subprocess.run([*pip, 'install', '--no-deps', '--no-index', wheel], check=True, env=alone)
    site = next(folder.glob('lib/python*/site-packages'))
    for name in SCIENTIFIC + THEIRS:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # not needed by the versions that are installed
            continue
        for part in {file.parts[0] for file in distribution.files} - {'..', '__pycache__'}:
            (site / part).symlink_to(distribution.locate_file(part))

    def run(command, *arguments):
        command = [folder / 'bin' / command, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=alone, check=True, stdout=subprocess.PIPE, text=True).stdout

    return run


def test_wheel_holds_every_module_and_what_mim_looks_for(wheel):
    """A folder without __init__.py imports from the tree, but is left out of a wheel."""
    assert wheel.name.split('-')[1] == mmnfn.__version__
    assert not (ROOT / 'mmnfn/.mim').exists(), 'building leaves the tree as it was'
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmnfn').rglob('*.py')}
    for folder in ('configs', 'studies'):
        expected |= {
            f'mmnfn/.mim/{path.relative_to(ROOT).as_posix()}'
            for path in (ROOT / folder).rglob('*')
            if path.suffix in ('.py', '.yml')
        }
    assert expected | {'mmnfn/.mim/model-index.yml', 'mmnfn/.mim/tools/train.py'} <= names
    assert not any(name.startswith('mmnfn/.mim/tools/dev') for name in names)


def test_nsd_works_without_torch_and_mmengine(bare, tiny, tmp_path):
    script = (
        'from importlib.util import find_spec\n'
        'from mmnfn.nsd import ROIStore, prepare\n'
        'import mmnfn\n'
        f'assert mmnfn.__version__ == {mmnfn.__version__!r}\n'
        'assert not any(find_spec(name) for name in ("torch", "mmengine", "mmcv", "mmpretrain", "cv2"))\n'
    )
    bare('python', '-c', script)
    assert 'b3 sessions' in bare('mmnfn-nsd', 'inspect', tiny.root)
    store = tmp_path / 'store'
    out = bare('mmnfn-nsd', 'prepare', tiny.root, store, '--rois', *CLASSES, '--image-size', 16, '--verify', 3)
    assert f'wrote {store}/subj02.h5' in out and f'wrote {store}/images_16.h5' in out and 'largest difference' in out
    read = f'from mmnfn.nsd import ROIStore; print(ROIStore({str(store / "subj02.h5")!r}).responses.shape)'
    assert bare('python', '-c', read).startswith('(')
    table = write_stim_info(tmp_path / 'info.csv')
    assert bare('mmnfn-nsd', 'overlap', table) == 'images used by NSD: 100 (100 of train2017, 0 of val2017)\n'


def test_the_example_trains_in_another_project(wheel, world, tmp_path):
    """RetinaNet from another folder, with the wheel and without a checkout."""
    mmdet = pytest.importorskip('mmdet')
    packages = tmp_path / 'packages'
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q', 'install', '--no-deps', '--no-index']
    subprocess.run([*pip, '--target', packages, wheel], check=True, capture_output=True)
    environment = dict(os.environ, PYTHONPATH=str(packages), OMP_NUM_THREADS='1')
    cfg = Config.fromfile(ROOT / 'configs/demo/pretrain.py')
    export_random(cfg, str(tmp_path / 'backbone_latest.pth'))
    (tmp_path / EXAMPLE.name).write_text(EXAMPLE.read_text())
    arch = cfg.model.backbone.arch.to_dict()
    (tmp_path / 'small.py').write_text(SMALL.format(example=EXAMPLE.name, arch=arch, root=str(world / 'coco') + '/'))
    train = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    done = subprocess.run(
        [sys.executable, str(train), 'small.py'],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert 'backbone: 89 of 89 tensors loaded from backbone_latest.pth' in output
    assert 'Epoch(val) [1][4/4]' in output
    assert (tmp_path / 'work_dirs/small/epoch_1.pth').is_file()
    where = subprocess.run(
        [sys.executable, '-c', 'import mmnfn, mmnfn.apis.model as m; print(mmnfn.__file__, m.shipped_index())'],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert where.split() == [str(packages / 'mmnfn/__init__.py'), str(packages / 'mmnfn/.mim/model-index.yml')]


def test_every_metafile_is_listed():
    assert sorted(METAFILES) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / 'configs').glob('*/metafile.yml')
    )


@pytest.mark.parametrize('metafile', METAFILES)
def test_metafile_names_files_that_exist(metafile):
    content = yaml.safe_load((ROOT / metafile).read_text())
    collections = {collection['Name'] for collection in content['Collections']}
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()
    for model in content['Models']:
        assert model['In Collection'] in collections
        assert (ROOT / model['Config']).is_file()
        assert model['Name'] == Path(model['Config']).stem
