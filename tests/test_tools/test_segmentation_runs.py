"""UPerNet of the demo on images of any form, and what tools/train.py says of label maps it cannot use."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')
CONFIG = Path(__file__).resolve().parents[2] / 'configs/demo/upernet_micro_demo.py'
COUNT = 12


@pytest.fixture()
def data(tmp_path):
    """Twelve images of several forms, whose left half is unlabelled."""
    rng = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(COUNT):
            height, width = [(64, 64), (48, 64), (64, 40)][number % 3]
            labels = np.full((height, width), number + 1, np.uint8)
            labels[:, : width // 2] = 0
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / f'images/{split}/{number:02d}.jpg')
            Image.fromarray(labels).save(tmp_path / f'annotations/{split}/{number:02d}.png')
    return tmp_path


@pytest.fixture()
def train(run, data):
    """Run tools/train.py for an iteration on all twelve images."""

    def call(*options):
        short = ['model.backbone.init_cfg=None', 'train_cfg.max_iters=1', 'default_hooks.logger.interval=1']
        # MMEngine gives a visualizer of the same name to every run of a process, with the first one's folder
        whole = [f'data_root={data}', f'train_dataloader.batch_size={COUNT}', f'visualizer.name={data.name}']
        return run('train', CONFIG, '--work-dir', data / 'work', '--cfg-options', *short, *whole, *options)

    return call


def test_images_need_not_be_square_or_wholly_labelled(train, run, data):
    code, _, err = train('train_dataloader.persistent_workers=True')  # with num_workers=0, which PyTorch refuses
    assert code == 0, err
    (log,) = (data / 'work').rglob('scalars.json')
    assert np.isfinite([json.loads(line)['loss'] for line in log.read_text().splitlines()]).all()
    code, out, err = run(
        'test', CONFIG, data / 'work/iter_1.pth', '--work-dir', data / 'work', '--cfg-options', f'data_root={data}'
    )
    assert code == 0 and 'mIoU' in out, err


def test_a_label_map_that_means_something_else_ends_training_in_one_line(train, data):
    path = data / 'annotations/training/01.png'  # not among those that are looked at before
    Image.fromarray(np.full((48, 64), 99, np.uint8)).save(path)
    code, _, err = train('train_dataloader.num_workers=1')
    assert code == 2 and 'Traceback' not in err
    assert err.splitlines()[-1].startswith(f'train.py: error: {path}: 3072 pixels have the value 99, but reduce_zero')
