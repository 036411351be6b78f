"""Models from configs and checkpoints, and embeddings of images and responses as the test loop has them."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmnfn.apis import BrainImageRetriever, get_model, rank
from mmnfn.datasets import NSDDataset, collate_subject_batch, subject_geometry
from mmnfn.datasets.transforms import PackNSDInputs
from mmnfn.engine.checkpoint import export_checkpoint
from mmnfn.nsd import ROIStore

ROOT = Path(__file__).resolve().parents[2]
ROIS = ('streams', 'floc-faces')


@pytest.fixture(scope='module')
def config(store):
    """A small NeuroFusionNet on the micro Swin, for the images of 32 pixels of the test store."""
    cfg = Config.fromfile(ROOT / 'configs/demo/pretrain.py')
    cfg.model.fmri_encoder.update(roi_names=ROIS, embed_dims=16, out_dims=24, kernel_size=8, stride=4)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.update(data_root=str(store), images='images_32.h5')
    return cfg


@pytest.fixture(scope='module')
def checkpoint(config, tmp_path_factory):
    """Weights other than those that the config gives."""
    path = tmp_path_factory.mktemp('apis') / 'epoch_1.pth'
    state = get_model(config).state_dict()
    state = {key: value + 0.01 if value.is_floating_point() else value for key, value in state.items()}
    torch.save(dict(state_dict=state, meta={}), path)
    return path


@pytest.fixture(scope='module')
def retriever(config, checkpoint):
    return BrainImageRetriever(config, checkpoint, batch_size=2)


@pytest.fixture(scope='module')
def dataset(store):
    options = dict(roi_names=ROIS, voxel_order='hilbert', pipeline=[PackNSDInputs()])
    return NSDDataset(store, [1], 'images_32.h5', **options)


def test_model_has_the_weights_of_the_checkpoint(config, checkpoint, tmp_path):
    config.dump(tmp_path / 'config.py')
    model = get_model(tmp_path / 'config.py', checkpoint)
    saved = torch.load(checkpoint)['state_dict']
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    assert not model.training and model.cfg.model == config.model


def test_checkpoint_that_does_not_fit_is_refused(config, checkpoint, tmp_path):
    other = Config(config.to_dict())
    other.model.fmri_encoder.out_dims = 32
    with pytest.raises(
        ValueError, match=r'does not load into the model: .* is \(24.*here \(\d+ more differ\).*NeuroFusionNet'
    ):
        get_model(other, checkpoint)
    exported = str(tmp_path / 'backbone.pth')
    export_checkpoint(str(checkpoint), exported)
    with pytest.raises(ValueError, match='does not load into the model: it lacks .*neck'):
        get_model(config, exported)


def test_an_exported_backbone_fits_the_encoding_config(checkpoint, tmp_path, retriever):
    """All of it, but for the norms of stages that pretraining did not use."""
    exported = str(tmp_path / 'backbone.pth')
    export_checkpoint(str(checkpoint), exported)
    model = get_model(ROOT / 'configs/demo/encoding.py', exported)
    own = retriever.model.backbone.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.backbone.state_dict().items() if key in own)
    with pytest.raises(ValueError, match='BackboneFeatures has no fMRI encoder'):
        BrainImageRetriever(model)


def test_embeddings_are_those_of_the_test_loop(retriever, dataset, store):
    """Of the same three samples, from the store's own responses and from the geometry's."""
    samples = [dataset[i] for i in (0, 7, 20)]
    with torch.no_grad():
        batch = retriever.model.data_preprocessor(collate_subject_batch(samples))
        expected = retriever.model(**batch, mode='predict')
    images = retriever.embed_images([sample['inputs'].permute(1, 2, 0).numpy() for sample in samples])
    np.testing.assert_allclose(images, np.stack([e.image_embedding.numpy() for e in expected]), atol=1e-5)
    assert np.abs(images[0] - images[1]).max() > 1e-3
    brains = retriever.embed_responses(batch['responses'].numpy(), samples[0]['geometry'])
    np.testing.assert_allclose(brains, np.stack([e.fmri_embedding.numpy() for e in expected]), atol=1e-5)
    assert np.abs(brains[0] - brains[1]).max() > 1e-3

    roi_store = ROIStore(store / 'subj01.h5')
    rows = [int(np.flatnonzero(roi_store.image_id == int(sample['image_id']))[0]) for sample in samples]
    for subject in (roi_store, store / 'subj01.h5'):
        again = retriever.embed_responses(np.stack([roi_store.responses[row] for row in rows]), subject)
        np.testing.assert_allclose(again, brains, atol=1e-6)
    assert images.dtype == brains.dtype == np.float32 and images.shape == brains.shape == (3, 24)
    np.testing.assert_allclose(np.linalg.norm(brains, axis=1), 1, rtol=1e-5)


def test_voxels_are_arranged_as_in_training(config, store):
    """Also in a control, whose model has seen them nowhere else."""
    changed = Config(config.to_dict())
    changed.train_dataloader.dataset.update(permute_rois=3, permute_positions=4, voxel_order='stored')
    model, own = get_model(changed), ROIStore(store / 'subj01.h5')
    geometry, voxels = subject_geometry(own, ROIS, 'stored', 3, 4)
    found = BrainImageRetriever(model).embed_responses(own.responses[:3], own)
    expected = BrainImageRetriever(model).embed_responses(own.responses[:3][:, voxels], geometry)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    model.cfg = config
    assert np.abs(BrainImageRetriever(model).embed_responses(own.responses[:3], own) - expected).max() > 0.01


def test_every_kind_of_image(retriever, tmp_path):
    """A file, an array and a PIL image of the same image, which is wider than high and larger than the model's."""
    wide = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / 'wide.png')
    square = cv2.resize(wide[:, 16:64], (32, 32), interpolation=cv2.INTER_AREA)
    expected = retriever.embed_images(square)
    assert expected.shape == (1, 24)
    for images in ([str(tmp_path / 'wide.png'), wide, Image.fromarray(wide)], np.stack([wide, wide]), wide):
        for embedding in retriever.embed_images(images):
            np.testing.assert_allclose(embedding, expected[0], atol=1e-6)
    assert retriever.embed_images([]).shape == (0, 24)


def test_wrong_arguments_are_named(retriever, store, config, tmp_path):
    roi_store = ROIStore(store / 'subj01.h5')
    (tmp_path / 'text.jpg').write_text('no image')
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / 'deep.png')
    for images, error, named in (
        ('nothing.jpg', FileNotFoundError, 'nothing.jpg'),
        (tmp_path / 'text.jpg', ValueError, 'text.jpg is no image'),
        (tmp_path / 'deep.png', ValueError, 'deep.png .*give 8 bits a channel'),
        (np.zeros((8, 8, 3)), ValueError, r'uint8 RGB, but found float64 \(8, 8, 3\)'),
        ([np.zeros((8, 8), np.uint8)], ValueError, r'uint8 \(8, 8\)'),
    ):
        with pytest.raises(error, match=named):
            retriever.embed_images(images)
    with pytest.raises(ValueError, match=rf'\(2, 5\), but must be \(n, {len(roi_store.ncsnr)}\).*subj01.h5'):
        retriever.embed_responses(np.zeros((2, 5)), roi_store)
    spoiled = roi_store.responses[:3].copy()
    spoiled[2] = np.nan
    with pytest.raises(ValueError, match='hold NaN or infinite values; set'):
        retriever.embed_responses(spoiled, roi_store)
    without = Config(config.to_dict())
    for loader in (without.train_dataloader, without.val_dataloader, without.test_dataloader):
        loader.dataset.images = 'pictures.h5'
    with pytest.raises(ValueError, match='give image_size'):
        BrainImageRetriever(without)


def test_ranking_is_by_cosine_and_ties_stay_in_order():
    gallery = np.array([[1, 0], [0, 3], [1, 1], [2, 0]], np.float32)
    index, similarity = rank(np.array([[5, 0], [0, 1]], np.float32), gallery)
    assert index.tolist() == [[0, 3, 2, 1], [1, 2, 0, 3]]
    np.testing.assert_allclose(similarity, [[1, 1, 0.5**0.5, 0], [1, 0.5**0.5, 0, 0]], rtol=1e-6)
    assert BrainImageRetriever.rank(gallery[2], gallery, top=1).index.tolist() == [[2]]
    with pytest.raises(ValueError, match='D=2.*D=3'):
        rank(gallery, np.zeros((1, 3)))


def test_import_of_mmnfn_is_light():
    """It loads neither the models' library nor what only some parts of mmnfn need."""
    heavy = ('mmpretrain', 'mmdet', 'mmseg', 'h5py', 'nibabel', 'mmnfn.apis', 'mmnfn.models')
    code = f'import sys, mmnfn; print([name for name in {heavy} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == '[]', done.stderr
