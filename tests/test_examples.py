"""The example runs in another project: from another folder, with the wheel and without a checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmnfn.engine.checkpoint import export_random

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / 'examples/retinanet/retinanet_nfn-swin-s_fpn_1x_coco.py'


def test_collect_env_works_without_the_libraries(installed):
    """That is when it is needed."""
    script = (
        "import runpy, sys; sys.modules['mmengine'] = None; sys.argv = ['collect_env.py']; "
        f"runpy.run_path({str(installed / 'mmnfn/.mim/tools/collect_env.py')!r}, run_name='__main__')"
    )
    environment = dict(os.environ, PYTHONPATH=str(installed))
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and 'mmnfn cannot be imported' in done.stdout, done.stderr
    assert 'torch: ' in done.stdout and 'Python: 3' in done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Install the wheel into a folder."""
    folder = tmp_path_factory.mktemp('site')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    quiet = dict(check=True, capture_output=True)
    subprocess.run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', folder / 'wheel', ROOT], **quiet)
    (wheel,) = (folder / 'wheel').glob('mmnfn-*.whl')
    subprocess.run([*pip, 'install', '--no-deps', '--no-index', '--target', folder / 'packages', wheel], **quiet)
    return folder / 'packages'


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


def test_retinanet_trains_on_an_export(installed, world, tmp_path):
    mmdet = pytest.importorskip('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/demo/pretrain.py')
    export_random(cfg, str(tmp_path / 'backbone_latest.pth'))
    (tmp_path / EXAMPLE.name).write_text(EXAMPLE.read_text())
    arch = cfg.model.backbone.arch.to_dict()
    (tmp_path / 'small.py').write_text(SMALL.format(example=EXAMPLE.name, arch=arch, root=str(world / 'coco') + '/'))
    train = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    done = subprocess.run(
        [sys.executable, str(train), 'small.py'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(installed), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    assert 'backbone: 85 of 85 tensors loaded from backbone_latest.pth; norm1.weight' in output
    assert 'Epoch(val) [1][4/4]' in output
    assert (tmp_path / 'work_dirs/small/epoch_1.pth').is_file()
    where = subprocess.run(
        [sys.executable, '-c', 'import mmnfn, mmnfn.apis.model as m; print(mmnfn.__file__, m.shipped_index())'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(installed)),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert where.split() == [str(installed / 'mmnfn/__init__.py'), str(installed / 'mmnfn/.mim/model-index.yml')]
