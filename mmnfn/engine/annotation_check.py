"""Compare annotations with the classes and heads of a config before a run, for MMDetection and MMSegmentation."""

from __future__ import annotations

import functools
import os.path as osp
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, Callable, Sequence, Set, Tuple

import pycocotools.coco
from mmengine.config import Config
from PIL import Image

from mmnfn.datasets.coco_json import read_instances, require_masks

from .cfg_options import is_first_of_machine, walk, walk_dicts

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
    """Check folders of images and label maps against classes and heads."""
