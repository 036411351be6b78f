"""COCO instances files: what would be read wrongly without a word is refused with file and id."""

import json

import pytest

from mmnfn.nsd.coco_json import read_instances, require_masks

RUN_LENGTHS = dict(size=[40, 60], counts=[0, 2400])


def drop(name, field):
    return lambda content: content[name][1].pop(field)


def change(name, **fields):
    return lambda content: content[name][1].update(fields)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (drop('annotations', 'area'), "'area' is missing in annotations, id 8"),
        (drop('annotations', 'id'), "'id' is missing in annotations, number 1"),
        (drop('images', 'height'), "'height' is missing in images, id 2"),
        (change('annotations', bbox=[]), "'bbox' is missing in annotations, id 8"),
        (change('annotations', id=7), 'two annotations have the id 7'),
        (change('images', id=1), 'two images have the id 1'),
        (change('annotations', image_id='2'), "annotation 8 has image_id '2', and images have ids like 1"),
        (change('annotations', category_id=4), 'annotation 8 has category_id 4'),
        (
            change('annotations', segmentation=RUN_LENGTHS),
            r'annotation 8 has a mask of \[40, 60\] .* image 2 has \[60, 40\]',
        ),
        (lambda content: content.pop('images'), "has no list 'images'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, damage, message):
    content = dict(
        images=[dict(id=i, width=40, height=60, file_name=f'{i}.jpg') for i in (1, 2)],
        categories=[dict(id=3, name='cat'), dict(id=5, name='dog')],
        annotations=[dict(id=6 + i, image_id=i, category_id=3, bbox=[0, 0, 4, 4], area=16) for i in (1, 2)],
    )
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(content))
    assert read_instances(path) == content
    with pytest.raises(ValueError, match="'segmentation' is missing in annotations, id 7.*metric='bbox'"):
        require_masks(content, path)
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f'instances.json.*{message}'):
        read_instances(path)
