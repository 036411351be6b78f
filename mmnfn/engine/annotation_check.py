"""Compare annotations with the classes and heads of a config before a run, for MMDetection and MMSegmentation."""

from __future__ import annotations

import difflib
import functools
import os
import os.path as osp
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, Callable, List, Sequence, Set, Tuple

import numpy as np
import pycocotools.coco
from mmengine.config import Config
from PIL import Image

from mmnfn.datasets.loading import LoadImageFromFile, LoadLabelMap
from mmnfn.nsd.coco import read_instances, require_masks

from .cfg_options import LOADERS, is_first_of_machine, walk, walk_dicts

ORIENTATION = 0x0112
"""EXIF's tag; 5 to 8 are images that lie on a side."""


def check_annotations(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check that annotation files, classes and heads mean the same by a label.

    Args:
        cfg: The config of the run.
        loaders: The dataloaders that the run uses, with their evaluators.

    Raises:
        ValueError: They do not, or no sample is left.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        check_detection(cfg, loaders)
    elif scope == 'mmseg':
        check_segmentation(cfg, loaders)


def check_detection(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check COCO annotation files against classes, heads, images and metrics; the first process of each machine does.

    A label of MMDetection's ``CocoDataset`` is the number of its class among those of the dataset in the order of the
    file's ``categories``. The order of ``metainfo.classes``, by which the rest of the libraries names labels, has to be
    the same, and one for all datasets of the run. Files behind an address or ``backend_args`` are not read.
    """
    pycocotools.coco.print = lambda *_: None  # MMDetection's datasets have it talk into standard output
    if not is_first_of_machine():
        return
    from mmdet.datasets import BaseDetDataset, CocoDataset, CocoPanopticDataset
    from mmdet.registry import DATASETS

    read = functools.lru_cache(maxsize=None)(read_instances)
    known = None
    for loader in loaders:
        tested = set()
        for key, node in walk_dicts(cfg.get(loader), loader):
            kind = node.get('type') if 'ann_file' in node else None
            kind = DATASETS.get(kind) if isinstance(kind, str) else kind
            if not (isinstance(kind, type) and issubclass(kind, BaseDetDataset)) or node.get('return_classes'):
                continue  # return_classes: classes are words for the model, not labels
            meta = kind._load_metainfo(node.get('metainfo'))
            classes = meta.get('classes') or ()
            if isinstance(classes, str):
                raise ValueError(f'{key}.metainfo.classes is the text {classes!r}. Give a list: [{classes!r}].')
            if not classes:
                continue
            _check_heads(cfg, key, meta)
            known = known or (f'{key}.metainfo.classes', classes)
            check_labels(*known, f'{key}.metainfo.classes', classes)
            path = osp.join(node.get('data_root') or '', node.ann_file)
            by_file_order = kind.load_data_list is CocoDataset.load_data_list
            if not by_file_order or issubclass(kind, CocoPanopticDataset) or '://' in path or node.get('backend_args'):
                continue
            content = read(path)
            _check_categories(f'{key}.metainfo.classes', classes, path, content)
            _check_images(key, node, path, content, classes)
            tested |= {image['id'] for image in content['images']}
        if tested:
            _check_metrics(cfg, loader.replace('dataloader', 'evaluator'), read, known[1], tested)


def check_labels(first: str, classes: Sequence[str], second: str, others: Sequence[str]) -> None:
    """Raise a ValueError that names both where two lists of classes do not mean the same by a label."""
    for label, (one, other) in enumerate(zip_longest(classes, others, fillvalue='nothing')):
        if one != other:
            raise ValueError(
                f'Label {label} is {one!r} by {first} and {other!r} by {second}. Bring classes and the categories of '
                'all annotation files into one order.'
            )


def _check_heads(cfg: Config, key: str, meta: dict) -> None:
    """Compare the heads' numbers of classes with those of a dataset."""
    things = len(meta.get('thing_classes', meta['classes']))
    counts = dict(num_classes=things, num_things_classes=things, num_stuff_classes=len(meta['classes']) - things)
    for name, head in walk(cfg.get('model'), 'model'):
        if '_head' not in name or 'rpn_head' in name or 'track' in name:
            continue
        for field, count in counts.items():
            # a semantic head beside the others has classes of its own
            if isinstance(head.get(field), int) and head[field] != count and 'semantic_head' not in name:
                raise ValueError(
                    f'{name}.{field} is {head[field]}, and {key} has {count} classes. Set the one that is wrong.'
                )


def _check_categories(name: str, classes: Sequence[str], path: str, content: dict) -> None:
    """Compare classes with the categories of a file."""
    categories = [category['name'] for category in content['categories']]
    unknown = [one for one in classes if one not in categories]
    if unknown:
        raise ValueError(
            f'{name}: {path} has no category {", ".join(map(repr, unknown[:10]))} ({len(unknown)} of {len(classes)} '
            f'classes are missing). It has {", ".join(map(repr, categories[:100]))}.'
        )
    check_labels(name, classes, path, [category for category in categories if category in classes])


def _check_images(key: str, node: dict, path: str, content: dict, classes: Sequence[str]) -> None:
    """Check that samples are left, that masks are there where they are loaded, and that images have their sizes."""
    folder = osp.join(node.get('data_root') or '', (node.get('data_prefix') or {}).get('img') or '')
    images, pipeline = content['images'], node.get('pipeline') or []
    if not node.get('test_mode'):
        ids = {category['id'] for category in content['categories'] if category['name'] in classes}
        # as CocoDataset drops annotations and images
        things = {
            annotation['image_id']
            for annotation in content['annotations']
            if annotation['category_id'] in ids and annotation['area'] > 0 and min(annotation['bbox'][2:]) >= 1
        }
        rules = node.get('filter_cfg') or {}
        images = [image for image in images if min(image['width'], image['height']) >= rules.get('min_size', 0)]
        if rules.get('filter_empty_gt') or (content['annotations'] and not things):
            images = [image for image in images if image['id'] in things]
    if not images:
        raise ValueError(
            f'{key}: no sample is left of the {len(content["images"])} images of {path} (images in {folder!r}, classes '
            f'{", ".join(map(repr, classes[:10]))}, filter_cfg {dict(node.get("filter_cfg") or {})}); things need an '
            'area above 0 and boxes of 1 pixel. Correct the file or the settings.'
        )
    if any(transform.get('with_mask') for transform in pipeline):
        require_masks(content, path)
    load = next((transform for transform in pipeline if _type_name(transform) == 'LoadImageFromFile'), None)
    if load is None:
        return
    turns = load.get('color_type', 'color') in ('color', 'grayscale') and load.get('imdecode_backend') != 'turbojpeg'
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(functools.partial(_check_size, path, folder, turns), images):
            pass


def _check_size(path: str, folder: str, turns: bool, entry: dict) -> None:
    """Compare an entry of ``images`` with the size that its file is loaded with, by the header."""
    file = osp.join(folder, entry['file_name'])
    try:
        with Image.open(file) as image:
            size = image.size
            turned = turns and 'exif' in image.info and image.getexif().get(ORIENTATION, 1) > 4
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(
            f'{file} of {path} cannot be read as an image: {error}. Put it there again, or correct data_prefix.'
        ) from error
    size = size[::-1] if turned else size
    if size != (entry['width'], entry['height']):
        remedy = 'Correct the file.'
        if turned:
            remedy = (
                'Its EXIF data turn it: where it was annotated as it is stored, set color_type='
                "'color_ignore_orientation' in LoadImageFromFile of each pipeline, else correct the file."
            )
        raise ValueError(
            f'{path} says that image {entry["id"]!r} ({entry["file_name"]}) is {entry["width"]} x {entry["height"]} '
            f'pixels, and it is loaded as {size[0]} x {size[1]}. {remedy}'
        )


def _check_metrics(
    cfg: Config, evaluator: str, read: Callable[[str], dict], classes: Sequence[str], tested: Set[Any]
) -> None:
    """Compare the metrics' files with the classes and ids of the tested images."""
    for key, node in walk_dicts(cfg.get(evaluator), evaluator):
        name, path = _type_name(node), node.get('ann_file')
        if name not in ('CocoMetric', 'CocoNSDMetric') or not path or '://' in path or node.get('backend_args'):
            continue
        content = read(path)
        _check_categories(f'the classes of {evaluator.replace("evaluator", "dataloader")}', classes, path, content)
        missing = tested - {image['id'] for image in content['images']}
        if missing:
            raise ValueError(
                f'{key}.ann_file: {path} has no image {next(iter(missing))!r} ({len(missing)} of the {len(tested)} '
                'tested ones are missing). Give the file that the dataset reads.'
            )
        if 'segm' in node.get('metric', 'bbox' if name == 'CocoMetric' else 'segm'):
            require_masks(content, path)
        for annotation in content['annotations'] if name == 'CocoMetric' else ():
            if annotation['id'] == 0 or 'iscrowd' not in annotation:
                raise ValueError(
                    f'{key}: CocoMetric takes annotation {annotation["id"]!r} of {path} for one that is never found, '
                    'or fails: it needs ids from 1, and iscrowd. Use mmnfn.CocoNSDMetric, or correct the file.'
                )


def _type_name(node: dict) -> str:
    """Name of what a config node builds, without its library."""
    kind = node.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def check_segmentation(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check folders of images and label maps against classes and heads; the first process of each machine does.

    Ten label maps of each dataset are read; :class:`~mmnfn.datasets.LoadLabelMap` checks the others when they are used.
    """
    if not is_first_of_machine():
        return
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    found = []
    for key, node in (item for name in LOADERS for item in walk_dicts(cfg.get(name), name)):
        kind = DATASETS.get(node['type']) if isinstance(node.get('type'), str) else node.get('type')
        if isinstance(kind, type) and issubclass(kind, BaseSegDataset):
            names = _class_names(key, node, kind)
            _check_segmentation_heads(cfg, key, names)
            found.append((key, node, kind, names, len(kind.METAINFO.get('classes') or names)))
    for key, _, _, names, _ in found:
        for label, pair in enumerate(zip(names, found[0][3])):
            if pair[0] != pair[1]:
                raise ValueError(
                    f'label {label} is {pair[1]!r} in {found[0][0]}, and {pair[0]!r} in {key}. Give both the same '
                    'metainfo.classes.'
                )
    for key, node, kind, _, num_classes in found:
        if key.split('.')[0] in loaders and not node.get('backend_args'):
            arguments = {name: value for name, value in node.items() if name != 'type'}
            _check_label_maps(key, node, kind(**{**arguments, 'pipeline': [], 'lazy_init': True}), num_classes)


def _class_names(key: str, node: dict, kind: type) -> List[str]:
    """Classes of a dataset of MMSegmentation, label 0 first."""
    names, own = kind._load_metainfo(node.get('metainfo')).get('classes'), kind.METAINFO.get('classes')
    if isinstance(names, str) or not names:
        raise ValueError(f'{key}.metainfo.classes is {names!r}; give a list of names, or a file with one a line.')
    unknown = [name for name in names if own and name not in own]
    if unknown:
        near = difflib.get_close_matches(unknown[0], own, 1)
        raise ValueError(
            f'{key}.metainfo.classes: {kind.__name__} has no class {unknown[0]!r}'
            f'{f"; is {near[0]!r} meant?" if near else "."} Its classes are those of the label maps.'
        )
    return list(names)


def _check_segmentation_heads(cfg: Config, key: str, names: List[str]) -> None:
    """Compare each head's number of classes with those of a dataset."""
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import MODELS

    for place, head in walk(cfg.get('model'), 'model'):
        if not re.search(r'head(\.\d+)?$', place) or 'num_classes' not in head:
            continue
        number, out = head['num_classes'], head.get('out_channels')
        if number != len(names):
            raise ValueError(f'{place}.num_classes is {number}, and {key} has {len(names)} classes. Set it to that.')
        kind = MODELS.get(head.get('type', ''))  # heads of other kinds call their features out_channels
        if kind and issubclass(kind, BaseDecodeHead) and out not in (None, number) and (out, number) != (1, 2):
            raise ValueError(
                f'{place}.out_channels is {out}, and {key} has {number} classes. Leave it out; 1 is for two classes.'
            )


def _check_label_maps(key: str, node: dict, dataset: Any, num_classes: int) -> None:
    """Look for the files of a dataset, and read some of them."""
    for place, step in walk(node.get('pipeline'), f'{key}.pipeline'):
        if step.get('type') == 'mmnfn.LoadLabelMap' and step['num_classes'] != num_classes:
            raise ValueError(
                f'{place}.num_classes is {step["num_classes"]}, and the label maps of {key} have {num_classes} '
                'classes. Set it to that.'
            )
    folder, suffix = dataset.data_prefix['img_path'], dataset.img_suffix
    if not osp.isdir(folder):
        raise FileNotFoundError(f'{key}.data_prefix.img_path: there is no folder {folder!r}. Put the images there.')
    samples = dataset.load_data_list()
    if not samples and osp.isfile(dataset.ann_file):
        raise ValueError(f'{key}.ann_file: {dataset.ann_file} names no image.')
    if not samples:
        others = sorted({osp.splitext(name)[1] for name in os.listdir(folder)})[:5]
        raise ValueError(
            f'{key}: no file in {folder} ends in {suffix!r}; found {", ".join(filter(None, others)) or "nothing"}. Set '
            'img_suffix, or data_prefix.img_path.'
        )
    for name in ('img_path', 'seg_map_path'):
        paths = [sample[name] for sample in samples if name in sample]
        there = {path: set(os.listdir(path) if osp.isdir(path) else ()) for path in set(map(osp.dirname, paths))}
        missing = [path for path in paths if osp.basename(path) not in there[osp.dirname(path)]]
        if missing:
            raise FileNotFoundError(
                f'{key}: {len(missing)} of {len(paths)} files are missing, {missing[0]} first. Check data_prefix, '
                f'img_suffix ({suffix}) and seg_map_suffix ({dataset.seg_map_suffix}).'
            )
    load_image, load_map, seen = LoadImageFromFile(), LoadLabelMap(num_classes), set()
    for sample in samples[:: -(-len(samples) // 10)]:
        if 'seg_map_path' not in sample:  # of a test set without labels
            return
        seen.update(np.unique(load_map(load_image(dict(sample, label_map=None)))['gt_seg_map']).tolist())
    if not dataset.reduce_zero_label and seen <= {0, 255} and 255 in seen and num_classes > 1:
        raise ValueError(
            f'{key}: the label maps hold 0 and 255 alone, {sample["seg_map_path"]} among them, and 255 is unlabelled. '
            'Write the numbers of the classes: 1 for 255 in a mask.'
        )
