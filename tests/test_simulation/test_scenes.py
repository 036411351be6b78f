"""Images, masks and captions of a scene agree."""

import numpy as np

from mmnfn.simulation.scenes import CLASSES, STUFF_CLASSES, THING_CLASSES, render_scene


def scenes(count, size=96):
    return [render_scene(np.random.default_rng([7, i]), size) for i in range(count)]


def test_all_classes_occur():
    many = scenes(150)
    things = {i.name for s in many for i in s.instances}
    stuff = {CLASSES[k] for s in many for k in np.unique(s.semantic)} & set(STUFF_CLASSES)
    assert things == set(THING_CLASSES) and stuff == set(STUFF_CLASSES)
    assert {s.place for s in many} == {'beach', 'field', 'street', 'room'}


def test_masks_agree_with_the_semantic_map_and_do_not_overlap():
    for scene in scenes(30):
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        covered = np.zeros((96, 96), int)
        for instance in scene.instances:
            assert (scene.semantic[instance.mask] == CLASSES.index(instance.name)).all()
            covered += instance.mask
        assert covered.max() <= 1


def test_captions_name_what_is_visible():
    for scene in scenes(30):
        assert len(scene.captions) == 5
        for name in {i.name for i in scene.instances}:
            assert all(name in caption.lower() for caption in scene.captions)
