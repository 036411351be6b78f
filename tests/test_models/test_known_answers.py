"""Training in a simulated world finds pairs if there are any, and nothing if they are shuffled."""

import copy

import pytest
import torch
from scipy.stats import binom
from torch import nn

from mmnfn.datasets import NSDDataset, PackNSDInputs, collate_subject_batch
from mmnfn.models import NeuroFusionNet
from mmnfn.nsd import ROI_CLASSES

ITERATIONS = 120


def batch_of(store, split, shuffle_pairs=None, subject=1):
    """Make a batch of all images of a split of a subject."""
    options = dict(split=split, voxel_order='hilbert', shuffle_pairs=shuffle_pairs, pipeline=[PackNSDInputs()])
    dataset = NSDDataset(store, [subject], 'images_32.h5', **options)
    data = collate_subject_batch([dataset[i] for i in range(len(dataset))])
    images = (data['inputs'].float() - 115) / 60
    return images, data['responses'], data['image_id'], data['geometry']


def small_model(**settings):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.GELU(), nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64)]
    model = NeuroFusionNet(
        backbone=nn.Sequential(*layers, nn.GELU(), nn.Conv2d(64, 96, 3, 1, 1), nn.GELU()),
        neck=dict(in_channels=96),
        fmri_encoder=dict(roi_names=ROI_CLASSES, embed_dims=32, out_dims=32, num_heads=2, adapter={}),
        contrastive={},
        guidance=dict(negatives='roi+batch'),
        **settings,
    )
    model.init_weights()
    return model


def fit(model, batch, steps=ITERATIONS, rate=2e-3, weight_decay=0.05):
    """Train a model briefly."""
    images, responses, image_id, geometry = batch
    optimizer = torch.optim.AdamW(model.train().parameters(), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randperm(len(images))[:64]
        losses = model(images[chosen], responses[chosen], image_id[chosen], geometry, mode='loss')
        optimizer.zero_grad()
        (losses['loss_con'] + losses['loss_bfg']).backward()
        optimizer.step()
        schedule.step()


def train(store, shuffle_pairs=None):
    """Train a small model."""
    model = small_model()
    fit(model, batch_of(store, 'train', shuffle_pairs))
    return model.eval()


@pytest.fixture(scope='module')
def trained(store):
    return train(store)


def test_all_weights_of_the_fmri_tower_are_learned_alike(store):
    """Adam moves each number by about the learning rate, so weights that start large would hardly change."""
    model, (images, responses, image_id, geometry) = small_model(), batch_of(store, 'train')
    weights = {name: weight for name, weight in model.fmri_encoder.named_parameters() if weight.dim() > 1}
    weights.pop('embedding.bias')  # starts at zero
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for chosen in torch.randperm(len(images)).split(len(images) // 10)[:10]:  # an epoch
        losses = model(images[chosen], responses[chosen], image_id[chosen], geometry, mode='loss')
        optimizer.zero_grad()
        (losses['loss_con'] + losses['loss_bfg']).backward()
        optimizer.step()
    moved = {name: float((weights[name].detach() - old).norm() / old.norm()) for name, old in start.items()}
    assert {'embedding.adapter.maps', 'embedding.response_weight', 'readout.queries'} <= set(moved)
    assert min(moved.values()) > 0.05 and max(moved.values()) < 8 * min(moved.values()), moved


def hits(predictions):
    """Count images whose own response is the nearest one, by the global features and by those of each ROI."""
    image = torch.stack([p.image_embedding for p in predictions])
    fmri = torch.stack([p.fmri_embedding for p in predictions])
    rois = torch.einsum(
        'ikd,jkd->kij',
        torch.stack([p.image_roi_embeddings for p in predictions]),
        torch.stack([p.fmri_roi_embeddings for p in predictions]),
    )
    own = torch.arange(len(predictions))
    return int(((image @ fmri.t()).argmax(1) == own).sum()), (rois.argmax(2) == own).sum(1).tolist()


def roi_hits(predictions):
    """Compute the share of image ROI features whose nearest fMRI feature in the sample is that of the same ROI."""
    image = torch.stack([p.image_roi_embeddings for p in predictions])
    fmri = torch.stack([p.fmri_roi_embeddings for p in predictions])
    matched = torch.einsum('ikd,igd->ikg', image, fmri).argmax(2) == torch.arange(image.shape[1])
    return float(matched.float().mean())


@pytest.fixture(scope='module')
def shuffled(store):
    return train(store, shuffle_pairs=0)(*batch_of(store, 'test'), mode='predict')


def test_pairs_are_found(trained, store):
    predictions = trained(*batch_of(store, 'test'), mode='predict')
    count = len(predictions)
    assert hits(predictions)[0] > binom.ppf(0.9999, count, 1 / count)


def test_shuffled_pairs_leave_retrieval_at_chance(shuffled):
    """Global and ROI features stay within the 99% band of guessing, corrected for six ROIs."""
    count = len(shuffled)
    top1, rois = hits(shuffled)
    assert top1 <= binom.ppf(0.995, count, 1 / count)
    assert max(rois) <= binom.ppf(1 - 0.005 / len(rois), count, 1 / count)


def test_naming_the_roi_needs_no_stimulus(shuffled):
    """Shuffled features still tell the ROIs apart: L_bfg over ROIs alone tells nothing about the brain."""
    assert roi_hits(shuffled) > 0.5, 'guessing gives one in six'


def test_a_new_person_is_found_once_a_map_was_trained(trained, store):
    """Everything else stays as it was, other people's maps included."""
    before = copy.deepcopy(trained.state_dict())
    adapted = small_model(train_maps_only=True)
    adapted.load_state_dict(before)
    found = [adapted.eval()(*batch_of(store, 'test', subject=2), mode='predict')]
    fit(adapted, batch_of(store, 'train', subject=2), steps=40, rate=1e-2, weight_decay=0)
    found.append(adapted.eval()(*batch_of(store, 'test', subject=2), mode='predict'))
    guessed = binom.ppf(0.9999, len(found[0]), 1 / len(found[0]))
    assert hits(found[0])[0] <= guessed < hits(found[1])[0]
    after = adapted.state_dict()
    for name in ('maps', 'trained_subjects'):
        old, new = (state.pop(f'fmri_encoder.embedding.adapter.{name}') for state in (before, after))
        assert [torch.equal(*rows) for rows in zip(old, new)] == [True, False, *[True] * 6]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
