"""Grad-CAM, ROI maps and brain maps: numbers against a slow reference, figures by their pixels."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import cv2
import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch.nn import functional as F

from mmnfn.apis import get_model
from mmnfn.datasets import subject_geometry
from mmnfn.nsd import ROI_CLASSES, ROIStore
from mmnfn.visualization.grad_cam import ImageEmbedding, as_map, grad_cam, target_layer
from mmnfn.visualization.image_maps import draw_grid, roi_maps

needs_grad_cam = pytest.mark.skipif(
    importlib.util.find_spec('pytorch_grad_cam') is None, reason='pytorch-grad-cam is not installed'
)
ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    'swin': 'configs/demo/pretrain.py',
    'convnext': 'configs/demo/pretrain_convnext.py',
    'clip': 'configs/demo/pretrain_clip.py',
    'features': 'configs/demo/encoding.py',
}


def tool(name):
    """Import a script of tools/visualization."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/visualization/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def models():
    torch.manual_seed(0)
    return {name: get_model(ROOT / config) for name, config in CONFIGS.items()}


@pytest.fixture(scope='module')
def images():
    return [np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8) for i in range(3)]


def normalised(model, images):
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return model.data_preprocessor(dict(inputs=batch), False)['inputs']


@pytest.mark.parametrize('name', ['swin', 'convnext'])
@pytest.mark.parametrize('stage', [1, -1])
def test_activations_become_the_backbones_own_maps(images, name, stage):
    """A wrong reshape would transpose or shuffle places; the backbone's own map of the stage shows the right one."""
    cfg = Config.fromfile(ROOT / CONFIGS[name])
    cfg.model.backbone.out_indices = (stage % 4,)
    torch.manual_seed(1)
    if name == 'convnext':
        cfg.model.neck.in_channels = (32, 64, 128, 256)[stage]
    model = get_model(cfg)
    kept = []
    handle = target_layer(model, stage).register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.no_grad():
        own = model.backbone(normalised(model, images))[-1]
        handle.remove()
        maps = as_map(kept[0])
        norm = getattr(model.backbone, f'norm{stage % 4}')
        normed = norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if name == 'swin' else norm(maps)
    assert own.shape[-1] > 1 and torch.allclose(normed, own, atol=1e-5)


@needs_grad_cam
@pytest.mark.parametrize('name', list(CONFIGS))
@pytest.mark.parametrize('count', [1, 3])
def test_grad_cam_is_the_gradients_mean_times_the_activations(models, images, name, count):
    model, images = models[name], images[:count]
    cam = grad_cam(model, images, stage=2)
    kept = []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    inputs = normalised(model, images)
    with torch.no_grad():
        unit = F.normalize(ImageEmbedding(model)(inputs), dim=1)
    directions = unit - unit.mean(0) if count > 1 else unit
    handle = target_layer(model, 2).register_forward_hook(keep)
    for i in range(count):
        kept.clear()
        (ImageEmbedding(model)(inputs[i : i + 1])[0] @ directions[i]).backward()
        activation, gradient = as_map(kept[0])[0].detach(), as_map(kept[0].grad)[0]
        heat = (gradient.mean(dim=(1, 2))[:, None, None] * activation).sum(0).clamp(min=0).numpy()
        heat = cv2.resize(heat, (64, 64))
        heat = (heat - heat.min()) / (1e-7 + (heat - heat.min()).max())
        assert cam[i].shape == (64, 64) and np.allclose(cam[i], heat, atol=2e-3)
        assert heat.std() > 0.01
    handle.remove()
    model.zero_grad(set_to_none=True)


@needs_grad_cam
def test_other_layers_can_be_named_and_unsuitable_ones_are_refused(models, images):
    model = models['swin']
    named = grad_cam(model, images, layer='backbone.stages.2.blocks.1')
    assert np.allclose(named, grad_cam(model, images, stage=2))
    assert not np.allclose(named, grad_cam(model, images, 'eigengradcam', stage=2))
    with pytest.raises(ValueError, match="has no layer 'backbone.layer4'"):
        grad_cam(model, images, layer='backbone.layer4')
    with pytest.raises(ValueError, match='layer: it returns tuple and no tensor'):
        grad_cam(model, images, layer='backbone.stages.2')
    with pytest.raises(ValueError, match="layer: 'fmri_encoder' takes no part"):
        grad_cam(model, images, layer='fmri_encoder')
    assert not grad_cam(model, [images[0], images[0]], stage=2).any(), 'nothing tells them apart'
    with pytest.raises(ValueError, match='NeuroFusionNet has no stage 4 made of blocks: .* Give the name of a layer'):
        grad_cam(model, images, stage=4)
    with pytest.raises(ValueError, match='method must be one of gradcam'):
        grad_cam(model, images, 'cam')
    with pytest.raises(ValueError, match=r'neither maps .* nor the tokens of a square image'):
        as_map(torch.zeros(1, 15, 4))
    with pytest.raises(ValueError, match='stage -1 made of blocks: its stages are no modules'):
        target_layer(SimpleNamespace(backbone=SimpleNamespace(stages=['stage0', 'stage1'])))


@needs_grad_cam
def test_grad_cam_needs_no_trainable_weights_and_leaves_the_model_as_it_was(models, images):
    model = models['features']
    expected = grad_cam(model, images)
    assert all(p.grad is None and p.requires_grad for p in model.parameters()) and not model.training
    assert not target_layer(model)._forward_hooks
    try:
        model.backbone.requires_grad_(False)
        assert expected.any() and np.array_equal(grad_cam(model, images), expected)
    finally:
        model.backbone.requires_grad_(True)


def test_roi_maps_are_the_weights_of_the_pooling(models, images):
    maps, names = roi_maps(models['swin'], images)
    assert maps.shape == (3, 6, 8, 8) and names[0] == 'prf-visualrois' and np.allclose(maps.sum((2, 3)), 1)
    model = models['swin']
    with torch.no_grad():
        feat = model.neck.local_features(model.backbone(normalised(model, images)))
        scores = torch.einsum('kc,bchw->bkhw', model.neck.map_conv.weight[:, :, 0, 0], feat)
    assert np.allclose(maps, scores.flatten(2).softmax(2).unflatten(2, (8, 8)).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match='BackboneFeatures. has no image tower with ROI maps'):
        roi_maps(models['features'], images)


def test_roi_maps_of_a_subject_are_those_of_the_encoding_head(models, images, store):
    own, model = ROIStore(store / 'subj01.h5'), models['swin']
    maps, names = roi_maps(model, images, own)
    assert names == ROI_CLASSES
    geometry, _ = subject_geometry(own, names, 'hilbert')  # the order of the voxels does not matter
    with torch.no_grad():
        feats = model.encoding.maps(model.backbone(normalised(model, images)))
        assert np.allclose(maps, model.encoding.roi_maps(feats, geometry).numpy(), atol=1e-6)


def test_a_map_is_drawn_at_its_place(tmp_path):
    """A hot corner of the map brightens that corner of the image, which stays upright."""
    heat = np.zeros((4, 4))
    heat[0, 3] = 1
    image = np.full((64, 64, 3), 128, np.uint8)
    image[32:, :32] = (0, 0, 255)
    draw_grid(tmp_path / 'a.png', [image], ['CAM'], [[heat]])
    figure = np.asarray(Image.open(tmp_path / 'a.png').convert('RGB')).astype(int)
    right = figure[:, figure.shape[1] // 2 :]
    inside = (right < 250).any(2)
    panel = right[inside.mean(1) > 0.8][:, inside.mean(0) > 0.5]
    h, w = panel.shape[0] // 2, panel.shape[1] // 2
    assert abs(h - w) < 5 and h > 100
    corners = [part.mean((0, 1)) for half in (panel[:h], panel[h:]) for part in (half[:, :w], half[:, w:])]
    red, blue = np.asarray(corners)[:, 0], np.asarray(corners)[:, 2]
    assert red.argmax() == 1 and red[1] > 20 + red[0], 'top right'
    assert blue.argmax() == 2, 'bottom left'


@pytest.fixture()
def files(tmp_path, images):
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f'{i}.png')
    return [str(tmp_path / f'{i}.png') for i in range(3)]


@needs_grad_cam
def test_tools_draw_image_files_and_nsd_images(models, images, files, tmp_path, capsys):
    torch.save(dict(state_dict=models['swin'].state_dict()), tmp_path / 'a.pth')
    config = str(ROOT / CONFIGS['swin'])
    one = ['--model', 'A', config, str(tmp_path / 'a.pth')]
    with h5py.File(tmp_path / 'nsd_stimuli.hdf5', 'w') as file:
        file['imgBrick'] = np.stack(images)
    store = ['--store', str(tmp_path / 'nsd_stimuli.hdf5'), '--ids']
    mine = tmp_path / 'mine.py'  # does not tell the size of its images
    loaders = [f"{kind}_dataloader = dict(dataset=dict(images='mine.h5'))" for kind in ('train', 'val', 'test')]
    mine.write_text('\n'.join([f"_base_ = '{config}'", *loaders]))
    assert tool('grad_cam').main([*files, *one, '--out', str(tmp_path / 'cam.png'), '--stage', '2']) == 0
    assert tool('roi_maps').main([*files, '--model', *one[2:], '--out', str(tmp_path / 'roi.png')]) == 0
    wide, narrow = (Image.open(tmp_path / f'{name}.png').size for name in ('roi', 'cam'))
    assert wide[0] == pytest.approx(3.5 * narrow[0], rel=0.02) and wide[1] == narrow[1]
    assert tool('grad_cam').main([*store, '2', '0', *one, '--out', str(tmp_path / 'nsd.png')]) == 0
    for arguments, words in (
        (one, 'IMAGE: give image files, or --store with --ids'),
        ([*files, '--ids', '3', *one], 'IMAGE: give image files, or --store with --ids'),
        (['missing.png', *one], "no file 'missing.png'"),
        ([*files, '--model', 'A', config, 'missing.pth'], 'missing.pth'),
        ([*files, *one, '--device', 'abacus'], "--device: 'abacus' cannot be used"),
        ([*store, '9', *one], '--ids: '),
        ([*files, *one[:2], str(mine), one[3]], '--image-size: the config does not tell'),
    ):
        assert tool('grad_cam').main([*arguments, '--out', str(tmp_path / 'no.png')]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / 'no.png').exists()


@pytest.fixture()
def volumes(tmp_path):
    """Write two maps of one subject: left positive and right negative, and a small value everywhere."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    values = np.full((20, 20, 20), np.nan, np.float32)
    values[2:10, 5:15, 4:16], values[10:18, 5:15, 4:16] = 0.5, -0.5
    small = np.where(np.isnan(values), np.nan, 0.05).astype(np.float32)
    paths = {}
    for name, array in (('signed', values), ('small', small)):
        paths[name] = str(tmp_path / f'{name}.nii.gz')
        nib.save(nib.Nifti1Image(array, affine), paths[name])
    return paths


def coloured(path):
    """Count red and blue pixels."""
    red, _, blue = np.asarray(Image.open(path).convert('RGB')).astype(int).transpose(2, 0, 1)
    return (red > blue + 60).sum(), (blue > red + 60).sum()


def test_brain_maps_show_signs_and_respect_the_threshold(volumes, tmp_path, capsys):
    pytest.importorskip('nilearn')
    main = tool('brain_maps').main
    arguments = ['--out', str(tmp_path / 'b.png'), '--map', 'signed', volumes['signed']]
    assert main([*arguments, '--slices', '3']) == 0
    red, blue = coloured(tmp_path / 'b.png')
    assert red > 1000 and blue > 1000
    assert main(['--out', str(tmp_path / 's.png'), '--map', 'small', volumes['small'], '--threshold', '0.1']) == 0
    assert coloured(tmp_path / 's.png')[0] < 300, 'only the colour bar'
    assert main([*arguments, '--map', 'signed', volumes['small']]) == 2
    assert 'a name is given twice' in capsys.readouterr().err


def test_wrong_volumes_are_named(volumes, tmp_path, capsys):
    pytest.importorskip('nilearn')
    main, out = tool('brain_maps').main, ['--out', str(tmp_path / 'no.png')]
    (tmp_path / 'text.nii.gz').write_text('no volume')
    nib.save(nib.Nifti1Image(np.full((5, 5, 5), np.nan, np.float32), np.eye(4)), tmp_path / 'empty.nii.gz')
    for name, words in (
        ('text', 'is no NIfTI volume'),
        ('missing', 'there is no file'),
        ('empty', 'has no value that is a number'),
    ):
        assert main([*out, '--map', 'a', str(tmp_path / f'{name}.nii.gz')]) == 2
        assert words in capsys.readouterr().err
    both = ['--map', 'a', volumes['signed'], '--background', str(tmp_path / 'empty.nii.gz')]
    assert main([*out, *both]) == 2 and 'another place than' in capsys.readouterr().err
    assert not (tmp_path / 'no.png').exists()
