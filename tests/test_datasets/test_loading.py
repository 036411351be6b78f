"""Label maps and images that mean something else, or cannot be read, are named with their file."""

import zlib

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
    """What the transform makes of a label map."""
    sample = dict(seg_map_path=str(path), reduce_zero_label=reduced, label_map=None, seg_fields=[], **more)
    return LoadLabelMap(CLASSES)(sample)['gt_seg_map']


@pytest.fixture()
def write(tmp_path):
    def save(values, dtype=np.uint8, mode=None):
        image = Image.fromarray(np.asarray(values, dtype))
        (image if mode is None else image.convert(mode)).save(tmp_path / 'map.png')
        return tmp_path / 'map.png'

    return save


def test_labels_are_those_of_the_file(write):
    path = write([[0, 1, 2], [2, 1, 255]])
    assert load(path, False).tolist() == [[0, 1, 2], [2, 1, 255]]
    path = write([[0, 1, 3]], np.uint16)
    found = load(path, True, ori_shape=(1, 3))
    assert found.tolist() == [[255, 0, 2]] and found.dtype == np.uint8
    palette = Image.fromarray(np.asarray([[0, 1, 3]], np.uint8)).convert('P')
    palette.putpalette([9, 8, 7] * 4)
    palette.save(path)
    assert load(path, True).tolist() == [[255, 0, 2]]


def test_classes_that_the_config_leaves_out_are_unlabelled(write):
    sample = dict(seg_map_path=str(write([[0, 1, 2, 3]])), reduce_zero_label=True, seg_fields=[])
    found = LoadLabelMap(CLASSES)(dict(sample, label_map={0: 255, 1: 1, 2: 0}))
    assert found['gt_seg_map'].tolist() == [[255, 255, 1, 0]] and found['seg_fields'] == ['gt_seg_map']
    image = dict(img=np.zeros((2, 2, 3)))
    assert LoadLabelMap(CLASSES)(dict(image)).keys() == image.keys(), 'of an inferencer, without a label map'


@pytest.mark.parametrize(
    'values, dtype, reduced, named',
    [
        ([[0, 3, 3]], np.uint8, False, 'map.png: 2 pixels have the value 3, but classes are 0…2 and 255 is un'),
        ([[1, 4]], np.uint8, True, r'map.png: 1 pixels have the value 4, .* classes are 1…3 and 0 is unlabelled'),
        ([[0, 255]], np.uint8, True, r'map.png: .* the value 255.* Set reduce_zero_label=False if .* reduced already'),
        ([[1, 257]], np.uint16, True, 'map.png: 1 pixels have the value 257'),
        ([[1, 511]], np.uint16, False, 'map.png: 1 pixels have the value 511'),
        ([[[1, 1, 1]]], np.uint8, True, 'map.png is a picture of 3 channels'),
        ([[1, 2]], np.uint8, True, r'map.png is 2 x 1 pixels, and its image a.jpg is 1 x 2'),
    ],
)
def test_maps_that_mean_something_else_are_refused(write, values, dtype, reduced, named):
    with pytest.raises(DataError, match=named):
        shape = (2, 1) if 'a.jpg' in named else (1, len(values[0]))
        load(write(values, dtype), reduced, ori_shape=shape, img_path='a.jpg')


def damaged(folder, kind):
    """Path of an image that cannot be read."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    suffix = 'png' if kind in ('half a PNG', 'huge') else 'jpg'
    content = cv2.imencode(f'.{suffix}', noise)[1].tobytes()
    path = folder / f'{kind.replace(" ", "-")}.{suffix}'
    if kind.startswith('half'):
        content = content[: len(content) // 2]
    if kind == 'huge':  # by what its header says
        header = b'IHDR' + (60000).to_bytes(4, 'big') * 2 + content[24:29]
        content = content[:12] + header + zlib.crc32(header).to_bytes(4, 'big') + content[33:]
    if kind != 'missing':
        path.write_bytes(dict(empty=b'', text=b'no image').get(kind, content))
    return str(path)


@pytest.mark.parametrize('kind', ['missing', 'empty', 'text', 'half a JPEG', 'half a PNG', 'huge'])
def test_images_that_cannot_be_read_are_named(tmp_path, kind):
    path = damaged(tmp_path, kind)
    for step, sample in (
        (TRANSFORMS.build(dict(type='LoadImageFromFile')), dict(img_path=path)),
        (LoadLabelMap(CLASSES), dict(seg_map_path=path, reduce_zero_label=True)),
    ):
        with pytest.raises(DataError) as error:
            step(sample)
        assert path in str(error.value) and '\n' not in str(error.value)


def test_images_are_loaded_as_before(tmp_path, real_data):
    """Photographs of COCO and ADE20K, none of which is cut off."""
    paths = [*(real_data / 'coco128/train2017').glob('*.jpg'), *(real_data / 'ade20k_sample').glob('*.jpg')]
    load_image = TRANSFORMS.build(dict(type='LoadImageFromFile'))
    assert len(paths) > 100 and all(load_image(dict(img_path=str(path)))['img'].ndim == 3 for path in paths)
    expected = cv2.imread(str(paths[0]))
    assert (load_image(dict(img_path=str(paths[0])))['img'] == expected).all()


class Failing(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DataError('a.png: wrong')


def test_the_line_of_a_data_worker_is_the_same():
    """PyTorch makes a traceback of it, under the same type."""
    with pytest.raises(DataError) as error:
        next(iter(DataLoader(Failing(), num_workers=1)))
    assert str(error.value) == 'a.png: wrong' and 'Traceback' in error.value.args[0]
