"""Label maps and images that mean something else, or cannot be read, are named with their file."""

import cv2
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mmnfn.datasets import LoadLabelMap
from mmnfn.utils import DataError

CLASSES = 3


def load(path, reduced, **more):
    """Load a label map."""
    sample = dict(seg_map_path=str(path), reduce_zero_label=reduced, seg_fields=[], **more)
    return LoadLabelMap(CLASSES)(sample)['gt_seg_map']


@pytest.fixture()
def write(tmp_path):
    def save(values, dtype=np.uint8):
        Image.fromarray(np.asarray(values, dtype)).save(tmp_path / 'map.png')
        return tmp_path / 'map.png'

    return save


def test_labels_are_those_of_the_file(write):
    assert load(write([[0, 1, 2], [2, 1, 255]]), False).tolist() == [[0, 1, 2], [2, 1, 255]]
    found = load(write([[0, 1, 3]], np.uint16), True, ori_shape=(1, 3))
    assert found.tolist() == [[255, 0, 2]] and found.dtype == np.uint8
    path = write([[0, 1, 3]])
    palette = Image.open(path).convert('P')
    palette.putpalette([9, 8, 7] * 4)
    palette.save(path)
    assert load(path, True).tolist() == [[255, 0, 2]]
    image = dict(img=np.zeros((2, 2, 3)))
    assert LoadLabelMap(CLASSES)(dict(image)).keys() == image.keys(), 'an inferencer has no label map'


def test_classes_that_the_config_leaves_out_are_unlabelled(write):
    found = load(write([[0, 1, 2, 3]]), True, label_map={0: 255, 1: 1, 2: 0})
    assert found.tolist() == [[255, 255, 1, 0]]


@pytest.mark.parametrize(
    'values, dtype, reduced, named',
    [
        ([[0, 3, 3]], np.uint8, False, 'map.png: 2 pixels have the value 3, but classes are 0…2 and 255 is un'),
        ([[1, 4]], np.uint8, True, r'map.png: 1 pixels have the value 4, .* classes are 1…3 and 0 is unlabelled'),
        ([[0, 255]], np.uint8, True, r'map.png: .* the value 255.* Set reduce_zero_label=False if .* reduced already'),
        ([[1, 257]], np.uint16, True, 'map.png: 1 pixels have the value 257'),
        ([[[1, 1, 1]]], np.uint8, True, 'map.png is an image of 3 channels'),
        ([[1, 2]], np.uint8, True, r'map.png is 2 x 1 pixels, and its image a.jpg is 1 x 2'),
    ],
)
def test_maps_that_mean_something_else_are_refused(write, values, dtype, reduced, named):
    shape = (2, 1) if 'a.jpg' in named else (1, len(values[0]))
    with pytest.raises(DataError, match=named):
        load(write(values, dtype), reduced, ori_shape=shape, img_path='a.jpg')


@pytest.mark.parametrize('kind', ['missing.jpg', 'text.jpg', 'half.jpg', 'half.png'])
def test_images_that_cannot_be_read_are_named(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    content = cv2.imencode(f'.{kind[-3:]}', noise)[1].tobytes()
    if kind != 'missing.jpg':
        (tmp_path / kind).write_bytes(b'no image' if kind == 'text.jpg' else content[: len(content) // 2])
    path = str(tmp_path / kind)
    for step, sample in (
        (TRANSFORMS.build(dict(type='LoadImageFromFile')), dict(img_path=path)),
        (LoadLabelMap(CLASSES), dict(seg_map_path=path, reduce_zero_label=True)),
    ):
        with pytest.raises(DataError) as error:
            step(sample)
        assert path in str(error.value) and '\n' not in str(error.value)


class Failing(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DataError('a.png: wrong')


def test_error_of_a_data_worker_is_the_same_line():
    """PyTorch puts a traceback into its message."""
    with pytest.raises(DataError) as error:
        next(iter(DataLoader(Failing(), num_workers=1)))
    assert str(error.value) == 'a.png: wrong' and 'Traceback' in error.value.args[0]
