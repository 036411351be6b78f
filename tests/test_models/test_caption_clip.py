"""The caption baseline: its loss against a loop, its parts, and a short training on simulated captions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from scipy.stats import binom
from torch import nn

from mmnfn.datasets import LoadCaption, NSDDataset, PackNSDInputs, collate_subject_batch, transforms
from mmnfn.models import CaptionCLIP
from mmnfn.nsd.coco import captions_by_image
from mmnfn.registry import MODELS

pytest.importorskip('open_clip')
CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CAPTIONS = ['a cat on a mat', 'two dogs', 'a street', 'a cat on a mat']


def build(**text):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 16, 5, 4, 2), nn.BatchNorm2d(16), nn.GELU(), nn.Conv2d(16, 24, 3, 2, 1))
    text = dict(dict(out_dims=16, width=32, heads=2, layers=1), **text)
    return CaptionCLIP(backbone=backbone, neck=dict(in_channels=24), text_encoder=text, contrastive={})


def test_loss_equals_a_loop_over_clips_loss():
    """Both directions; rows of the same image or photograph are not negatives of each other."""
    model = build().eval()
    images, ids = torch.randn(4, 3, 32, 32), torch.tensor([5, 6, 7, 5])
    losses = model(images, CAPTIONS, ids, mode='loss')
    image = F.normalize(model.neck.context(model.backbone(images).mean((2, 3))), dim=1)
    text = F.normalize(model.text_encoder(CAPTIONS), dim=1)
    expected = 0.0
    for a, b in ((image, text), (text, image)):
        for i in range(4):
            others = [j for j in range(4) if j == i or ids[j] != ids[i]]
            scores = torch.stack([a[i] @ b[j] / 0.07 for j in others])
            expected -= torch.log_softmax(scores, 0)[others.index(i)] / 8
    assert losses['loss_con'].item() == pytest.approx(expected.item(), rel=1e-5)
    crops = model(images, CAPTIONS, torch.arange(4), photo_id=ids, mode='loss')
    assert crops['loss_con'].item() == losses['loss_con'].item()
    losses['loss_con'].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_text_features_depend_on_their_caption_alone():
    encoder = build().text_encoder.eval()
    features = encoder(CAPTIONS)
    torch.testing.assert_close(features[0], features[3])
    torch.testing.assert_close(encoder(CAPTIONS[1:2])[0], features[1])
    assert (features[0] - features[1]).abs().max() > 0.1
    assert len(encoder(['word ' * 500])) == 1, 'long captions are cut'


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match='neck has out_dims=8, but the text encoder has out_dims=16'):
        text = dict(out_dims=16, width=8, heads=1, layers=1)
        CaptionCLIP(nn.Identity(), dict(in_channels=3, out_dims=8), text, contrastive={})
    with pytest.raises(ValueError, match='caption or image_id is missing .*mmnfn.LoadCaption'):
        build()(torch.randn(1, 3, 32, 32), mode='loss')
    with pytest.raises(ValueError, match="mode must be .*'train'"):
        build()(torch.randn(1, 3, 32, 32), mode='train')


@pytest.fixture(scope='module')
def where(world):
    stim_info = world / 'nsd/nsddata/experiments/nsd/nsd_stim_info_merged.csv'
    return dict(stim_info=str(stim_info), annotation_dir=str(world / 'coco_stimuli'))


def batch_of(store, where, split, random):
    dataset = NSDDataset(
        store, [1], 'images_32.h5', split=split, pipeline=[LoadCaption(**where, random=random), PackNSDInputs()]
    )
    data = collate_subject_batch([dataset[i] for i in range(len(dataset))])
    return (data['inputs'].float() - 115) / 60, data['caption'], data['image_id'], data['geometry']


def test_captions_are_read_once_when_the_dataset_is_built(store, where, tmp_path, monkeypatch):
    """Data workers are forked afterwards; a transform without a dataset reads nothing."""
    read = []
    transforms._read_captions.cache_clear()
    monkeypatch.setattr(transforms, 'captions_by_image', lambda *args: read.append(args) or captions_by_image(*args))
    both = LoadCaption(**where), LoadCaption(**where, random=False)
    assert not read
    for transform in both:
        NSDDataset(store, [1], 'images_32.h5', pipeline=[transform, PackNSDInputs()])
    assert len(read) == 1
    missing = LoadCaption(str(tmp_path / 'nsd_stim_info_merged.csv'), where['annotation_dir'])
    with pytest.raises(FileNotFoundError, match='nsd_stim_info_merged.csv'):
        NSDDataset(store, [1], 'images_32.h5', pipeline=[missing, PackNSDInputs()])


def test_captions_are_those_of_the_image(store, where):
    by_image = captions_by_image(where['stim_info'], where['annotation_dir'])
    _, first, ids, _ = batch_of(store, where, 'test', random=False)
    assert first == [by_image[i][0] for i in ids.tolist()]
    np.random.seed(0)
    _, drawn, ids, _ = batch_of(store, where, 'train', random=True)
    assert all(caption in by_image[i] for caption, i in zip(drawn, ids.tolist()))
    assert drawn != [by_image[i][0] for i in ids.tolist()] or max(map(len, by_image.values())) == 1


def test_training_finds_captions_of_held_out_images(store, where):
    """Chance reaches this once in 10,000 times."""
    model = build(width=64)
    images, captions, ids, _ = batch_of(store, where, 'train', random=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(80):
        chosen = torch.randperm(len(images))[:64]
        loss = model(images[chosen], [captions[i] for i in chosen], ids[chosen], mode='loss')['loss_con']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predictions = model.eval()(*batch_of(store, where, 'test', random=False), mode='predict')
    image = torch.stack([p.image_embedding for p in predictions])
    text = torch.stack([p.text_embedding for p in predictions])
    count = len(predictions)
    norms = torch.cat([image.norm(dim=1), text.norm(dim=1)])
    torch.testing.assert_close(norms, torch.ones(2 * count))
    rank = ((image @ text.t()) > (image * text).sum(1, keepdim=True)).sum(1)
    assert int((rank < 5).sum()) > binom.ppf(0.9999, count, 5 / count)


@pytest.mark.parametrize('suffix', ['', '_convnext-s'])
def test_config_differs_from_the_main_one_only_in_what_images_are_matched_with(suffix):
    main, clip = (Config.fromfile(CONFIGS / f'nfn/pretrain_nsd{name}{suffix}.py') for name in ('', '_clip'))
    assert clip.model.backbone == dict(main.model.backbone, out_indices=(3,))
    assert clip.model.neck.in_channels == main.model.neck.in_channels[-1]
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness', 'auto_scale_lr', 'custom_hooks'):
        assert clip[key] == main[key]
    for loader in ('train_dataloader', 'test_dataloader'):
        assert clip[loader].dataset.pop('pipeline') != main[loader].dataset.pop('pipeline')
        assert clip[loader] == main[loader]
    model = MODELS.build(clip.model)
    assert sum(p.numel() for p in model.text_encoder.parameters()) > 30e6, "open_clip's size"
