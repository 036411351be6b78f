"""Whether maps lie on their categories."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from pycocotools import mask as mask_utils

from mmnfn.evaluation.localization import CategoryMasks, LocalizationMetric
from mmnfn.structures import SubjectGeometry

CATEGORIES = {'faces': 'face', 'bodies': ['body', 'animal']}


@pytest.fixture(scope='module')
def annotated(tmp_path_factory):
    """Annotate two stimuli: an image with a face; a square cut from one with a body, an animal and a crowd of faces."""
    folder = tmp_path_factory.mktemp('annotated')
    table = dict(nsdId=[0, 1], cocoId=[70, 90], cocoSplit=['train2017', 'val2017'], cropBox=['(0, 0, 0, 0)'] * 2)
    table['cropBox'][1] = '(0, 0, 0.25, 0.25)'
    pd.DataFrame(table).to_csv(folder / 'stim_info.csv')
    crowd = np.zeros((10, 20), np.uint8)
    crowd[5:, 10:15] = 1
    counts = mask_utils.encode(np.asfortranarray(crowd))
    counts = dict(size=[10, 20], counts=counts['counts'].decode())
    shapes = {
        ('train2017', 70, 1): [[2, 0, 4, 0, 4, 8, 2, 8]],  # x from 2 to 4, y from 0 to 8
        ('val2017', 90, 2): [[0, 0, 10, 0, 10, 5, 0, 5]],
        ('val2017', 90, 3): [[5, 0, 10, 0, 10, 10, 5, 10]],
        ('val2017', 90, 1): counts,
    }
    for split, image in (('train2017', dict(id=70, height=8, width=8)), ('val2017', dict(id=90, height=10, width=20))):
        entries = [
            dict(id=n, image_id=i, category_id=c, segmentation=shape, bbox=[0, 0, 1, 1], area=1, iscrowd=0)
            for n, ((own, i, c), shape) in enumerate(shapes.items(), 1)
            if own == split
        ]
        categories = [dict(id=n, name=name) for n, name in enumerate(('face', 'body', 'animal'), 1)]
        content = dict(images=[dict(image, file_name='x.jpg')], categories=categories, annotations=entries)
        (folder / f'instances_{split}.json').write_text(json.dumps(content), 'utf-8')
    return folder / 'stim_info.csv', folder


def test_cells_that_categories_cover_in_the_stimulus(annotated):
    masks = CategoryMasks(*annotated)
    expected = np.zeros((4, 4))
    expected[:, 1] = 1
    np.testing.assert_allclose(masks.cover(0, ['face'], (4, 4)), expected)
    assert masks.cover(0, ['body', 'animal'], (4, 4)).sum() == 0
    # Columns 5 to 15 of the image are left: both categories cover the upper left corner, the animal the lower one too.
    np.testing.assert_allclose(masks.cover(1, ['body', 'animal'], (2, 2)), [[1, 0], [1, 0]])
    np.testing.assert_allclose(masks.cover(1, ['body'], (2, 2)), [[1, 0], [0, 0]])
    np.testing.assert_allclose(masks.cover(1, ['face'], (2, 2)), [[0, 0], [0, 1]])


@pytest.mark.parametrize(
    'heat, faces, bodies',
    [
        (np.full((4, 4), 1 / 16), 1.0, 1.0),
        # the diagonal: one cell in four of the face, two of the crowd
        (np.eye(4) / 4, (0.25 + 0.5) / (0.25 + 0.25), 1.0),
        (np.eye(4)[::-1] * [1, 0, 0, 0], 0.0, 1 / 0.5),  # the lower left corner
    ],
)
def test_mass_on_the_category_over_that_of_an_even_map(annotated, heat, faces, bodies):
    metric = LocalizationMetric(CATEGORIES, *annotated)
    geometry = SubjectGeometry('subj01', ('V1', 'bodies', 'faces'), (3, 2, 2), torch.zeros(7, 3))
    lacking = geometry._replace(subject='subj02')
    maps = torch.zeros(3, 4, 4)
    maps[1:] = torch.from_numpy(heat.astype(np.float32))
    for own in (geometry, lacking):
        found = maps if own is geometry else maps * torch.tensor([1, 0, 1])[:, None, None]  # the second lacks bodies
        metric.process(dict(geometry=own), [dict(image_id=i, roi_maps=found) for i in (0, 1)])
    metrics = metric.evaluate(4)
    assert metrics['localization/faces'] == pytest.approx(faces, abs=1e-6)
    assert metrics['localization/bodies'] == pytest.approx(bodies, abs=1e-6)
    assert metrics['localization/images_faces'] == 4 and metrics['localization/images_bodies'] == 1


def test_unknown_categories_are_named(annotated):
    with pytest.raises(ValueError, match="categories names 'dog', but .* has animal, body, face"):
        LocalizationMetric({'faces': ['face', 'dog']}, *annotated)
