"""Brains have regions where they belong, and tuning that is smooth over the cortex."""

import numpy as np
import pytest

from mmnfn.nsd.release import ROI_LABELS, SUBJECT_SHAPES
from mmnfn.simulation.cortex import make_anatomy
from mmnfn.simulation.scenes import CLASSES, render_scene
from mmnfn.simulation.tuning import ENERGY_CHANNELS, NUM_CHANNELS, Tuning, image_features, make_tuning, scale_features


@pytest.fixture(scope='module')
def brain():
    rng = np.random.default_rng(1)
    anatomy = make_anatomy(1, 4.0, rng)
    return anatomy, make_tuning(anatomy, 0, rng), np.nonzero(anatomy.visual)


@pytest.fixture(scope='module')
def features():
    scenes = [render_scene(np.random.default_rng([1, i]), 64) for i in range(200)]
    return scale_features(np.stack([image_features(s.image, s.semantic) for s in scenes]))


def test_geometry(brain):
    anatomy = brain[0]
    assert anatomy.brain.shape == tuple(round(n * 1.8 / 4) for n in SUBJECT_SHAPES['subj01'])
    assert not (anatomy.visual & ~anatomy.brain).any()
    x = np.nonzero(anatomy.hemisphere == 0)[0] * 4 + anatomy.affine[0, 3]
    assert x.max() < 0  # the left hemisphere has negative x (RAS)
    y = np.nonzero(anatomy.rois['prf-visualrois'] > 0)[1] * 4 + anatomy.affine[1, 3]
    assert y.max() < -20  # early visual cortex is at the back
    for name, labels in anatomy.rois.items():
        assert ((labels == -1) == (anatomy.hemisphere == -1)).all() and labels.max() <= len(ROI_LABELS[name])
        assert (labels > 0).sum() > 20


def test_brains_differ():
    first, second = (make_anatomy(1, 5.0, np.random.default_rng(s)) for s in (1, 2))
    a, b = first.rois['floc-faces'] > 0, second.rois['floc-faces'] > 0
    assert (a & b).sum() / (a | b).sum() < 0.8
    counts = [len(np.unique(make_anatomy(1, 6.0, np.random.default_rng(s)).rois['floc-words'])) for s in range(6)]
    assert len(set(counts)) > 1, 'some lack a label'


def test_left_hemisphere_sees_the_right_field(brain):
    anatomy, tuning, where = brain
    early = anatomy.rois['prf-visualrois'][where] > 0
    left = anatomy.hemisphere[where] == 0
    assert (tuning.field[early & left, 0] >= 0).all() and (tuning.field[early & ~left, 0] <= 0).all()
    names = ('Unknown',) + ROI_LABELS['prf-visualrois']
    label = anatomy.rois['prf-visualrois'][where]
    assert (tuning.field[label == names.index('V2v'), 1] > 0).all()  # ventral cortex sees the upper field
    assert (tuning.field[label == names.index('V2d'), 1] < 0).all()


def test_category_selective_voxels_prefer_their_category(brain, features):
    anatomy, tuning, where = brain
    responses = tuning.responses(features)
    for roi_class, name in (('floc-faces', 'face'), ('floc-bodies', 'body'), ('floc-words', 'word')):
        own = anatomy.rois[roi_class][where] > 0
        others = np.any([anatomy.rois[o][where] > 0 for o in anatomy.rois if o not in (roi_class, 'streams')], axis=0)
        shown = features[:, len(ENERGY_CHANNELS) + CLASSES.index(name)].max((1, 2)) > 0.5
        contrast = responses[shown][:, own & ~others].mean() - responses[~shown][:, own & ~others].mean()
        assert contrast > 0.5, roi_class


def test_tuning_is_smooth_over_the_cortex(brain, features):
    anatomy, tuning, where = brain
    responses = tuning.responses(features)
    xy = anatomy.flat[where]
    side = anatomy.hemisphere[where]
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    correlation = np.corrcoef(responses.T)
    same = side[:, None] == side[None]
    near = correlation[same & (distance > 0) & (distance < 2)].mean()
    far = correlation[same & (distance > 40)].mean()
    assert near > 0.6 and near > far + 0.4


def test_responses_against_a_loop(features):
    rng = np.random.default_rng(0)
    tuning = Tuning(
        np.stack([rng.uniform(-0.5, 0.5, 4), rng.uniform(-0.5, 0.5, 4), rng.uniform(0.2, 0.5, 4)], -1),
        rng.normal(size=(4, NUM_CHANNELS)),
        np.asarray([1.0, 0.5, 0.8, 0.6]),
        np.ones(4),
    )
    few = features[:12]
    slow = np.zeros((12, 4))
    for v in range(4):
        x0, y0, size = tuning.field[v]
        weight = np.zeros((16, 16))
        for row in range(16):
            for column in range(16):
                x, y = (column + 0.5) / 8 - 1, 1 - (row + 0.5) / 8  # y points up
                weight[row, column] = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * size**2))
        weight /= weight.sum()
        for i in range(12):
            drive = sum(tuning.weights[v, c] * (weight * few[i, c]).sum() for c in range(NUM_CHANNELS))
            slow[i, v] = np.sign(drive) * abs(drive) ** tuning.exponent[v]
    slow = (slow - slow.mean(0)) / slow.std(0)
    assert np.allclose(tuning.responses(few), slow, atol=1e-3)
