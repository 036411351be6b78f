"""Compare annotations with the classes and heads of a config before a run of MMDetection or MMSegmentation.

What is checked here would give a run that is wrong and does not say so, or a crash hours later.
"""

from __future__ import annotations

import functools
import os.path as osp
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, Callable, Iterator, Sequence, Tuple

import numpy as np
import pycocotools.coco
from mmengine.config import Config
from PIL import Image

from mmnfn.datasets.loading import LoadImageFromFile, LoadLabelMap
from mmnfn.nsd.coco import read_instances, require_masks
from mmnfn.utils import UserError, walk

from .launch import is_first_of_machine
from .run_config import LOADERS, walk_datasets

ORIENTATION = 0x0112
"""EXIF's tag; 5 to 8 are images that lie on a side."""


def check_annotations(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check that annotation files, classes and heads mean the same by a label; the first process of each machine does.

    Args:
        cfg: The config of the run.
        loaders: The dataloaders that the run uses, with their evaluators.

    Raises:
        UserError: They do not, or no sample is left.
        FileNotFoundError: A file is missing.
    """
    pycocotools.coco.print = lambda *_: None  # or MMDetection's datasets make it talk into standard output
    check = dict(mmdet=_check_detection, mmseg=_check_segmentation).get(cfg.get('default_scope'))
    if check and is_first_of_machine():
        try:
            check(cfg, loaders)
        except ValueError as error:
            raise UserError(str(error)) from error


def check_labels(first: str, classes: Sequence[str], second: str, others: Sequence[str]) -> None:
    """Raise a UserError that names both where two lists of classes do not mean the same by a label."""
    for label, (one, other) in enumerate(zip_longest(classes, others, fillvalue='nothing')):
        if one != other:
            raise UserError(
                f'Label {label} is {one!r} by {first} and {other!r} by {second}. Bring classes and the categories of '
                'all annotation files into one order.'
            )


def _check_detection(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check COCO annotation files against classes, heads, images and metrics.

    MMDetection's ``CocoDataset`` numbers the classes of a dataset in the order of the file's ``categories``. The order
    of ``metainfo.classes``, by which the rest of the libraries names labels, has to be the same, and the same for all
    datasets of the run. Panoptic data, and files behind an address or ``backend_args``, are not looked at.
    """
    from mmdet.datasets import BaseDetDataset, CocoDataset, CocoPanopticDataset
    from mmdet.registry import DATASETS

    read = functools.lru_cache(maxsize=None)(read_instances)
    known = None
    for loader in loaders:
        for key, node, kind in _datasets(cfg, loader, DATASETS, BaseDetDataset):
            classes = kind._load_metainfo(node.get('metainfo')).get('classes') or ()
            panoptic = issubclass(kind, CocoPanopticDataset)
            if panoptic or not classes or 'ann_file' not in node or node.get('return_classes'):
                continue  # return_classes: classes are words for the model, not labels
            name = f'{key}.metainfo.classes'
            _check_names(name, classes)
            _check_heads(cfg, key, len(classes))
            known = known or (name, classes)
            check_labels(*known, name, classes)
            path = osp.join(node.get('data_root') or '', node.ann_file)
            is_coco = kind.load_data_list is CocoDataset.load_data_list and not issubclass(kind, CocoPanopticDataset)
            if is_coco and _is_local(path, node):
                content = read(path)
                _check_categories(name, classes, path, content)
                _check_images(key, node, path, content, classes)
        if known:
            _check_metrics(cfg, loader.replace('dataloader', 'evaluator'), read, known[1])


def _datasets(cfg: Config, loader: str, registry: Any, base: type) -> Iterator[Tuple[str, dict, type]]:
    """Yield the datasets of a dataloader that are of a library's class, with their keys and classes."""
    for key, node in walk_datasets(cfg, loader):
        kind = registry.get(node['type']) if isinstance(node.get('type'), str) else node.get('type')
        if isinstance(kind, type) and issubclass(kind, base):
            yield key, node, kind


def _is_local(path: str, node: dict) -> bool:
    return '://' not in path and not node.get('backend_args')


def _check_names(name: str, classes: Any) -> None:
    if not classes or isinstance(classes, str):
        raise UserError(f'{name} is {classes!r}. Give a list of names, or a file with one name a line.')


def _check_heads(cfg: Config, key: str, count: int) -> None:
    """Compare the heads' numbers of classes with a dataset's; region proposals and semantic heads have their own."""
    for name, head in walk(cfg.get('model'), 'model'):
        other = any(part in name for part in ('rpn_head', 'semantic_head'))
        if '_head' in name and not other and head.get('num_classes', count) != count:
            raise UserError(
                f'{name}.num_classes is {head.num_classes}, and {key} has {count} classes. Set the one that is wrong.'
            )


def _check_categories(name: str, classes: Sequence[str], path: str, content: dict) -> None:
    """Compare classes with the categories of a file."""
    categories = [category['name'] for category in content['categories']]
    unknown = [one for one in classes if one not in categories]
    if unknown:
        raise UserError(
            f'{name}: {path} has no category {", ".join(map(repr, unknown[:10]))} ({len(unknown)} of {len(classes)} '
            f'classes are missing). It has {", ".join(map(repr, categories[:100]))}.'
        )
    check_labels(name, classes, path, [category for category in categories if category in classes])


def _check_images(key: str, node: dict, path: str, content: dict, classes: Sequence[str]) -> None:
    """Check that annotations are left, that masks are there where they are loaded, and that images have their sizes."""
    pipeline = node.get('pipeline') or []
    if not content['images']:  # a test of nothing ends well, with an AP of -1
        raise UserError(f'{key}: {path} lists no image. Correct the file.')
    if not node.get('test_mode'):
        ids = {category['id'] for category in content['categories'] if category['name'] in classes}
        # CocoDataset drops the others
        if not any(
            annotation['category_id'] in ids and annotation['area'] > 0 and min(annotation['bbox'][2:]) >= 1
            for annotation in content['annotations']
        ):
            raise UserError(
                f'{key}: {path} has no annotation of {", ".join(map(repr, classes[:10]))} with an area above 0 and a '
                'box of 1 pixel or more. Correct the file or the classes.'
            )
    if any(transform.get('with_mask') for transform in pipeline):
        require_masks(content, path)
    load = next((transform for transform in pipeline if _type_name(transform) == 'LoadImageFromFile'), None)
    if load is not None:
        folder = osp.join(node.get('data_root') or '', (node.get('data_prefix') or {}).get('img') or '')
        turns = load.get('color_type', 'color') in ('color', 'grayscale')
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(functools.partial(_check_size, path, folder, turns), content['images']):
                pass


def _check_size(path: str, folder: str, turns: bool, entry: dict) -> None:
    """Compare an entry of ``images`` with the size that its file is loaded with, by the file's header."""
    file = osp.join(folder, entry['file_name'])
    try:
        with Image.open(file) as image:
            turned = turns and 'exif' in image.info and image.getexif().get(ORIENTATION, 1) > 4
            size = image.size[::-1] if turned else image.size
    except OSError as error:
        raise UserError(
            f'{file} of {path} cannot be read as an image: {error}. Put it there again, or correct data_prefix.'
        ) from error
    if size != (entry['width'], entry['height']):
        remedy = 'Correct the file.'
        if turned:
            remedy = (
                'Its EXIF data turn it: if it was annotated as it is stored, set color_type='
                "'color_ignore_orientation' in LoadImageFromFile of each pipeline, else correct the file."
            )
        raise UserError(
            f'{path} says that image {entry["id"]!r} ({entry["file_name"]}) is {entry["width"]} x {entry["height"]} '
            f'pixels, and it is loaded as {size[0]} x {size[1]}. {remedy}'
        )


def _check_metrics(cfg: Config, evaluator: str, read: Callable[[str], dict], classes: Sequence[str]) -> None:
    """Check that the metrics' files have the classes in the same order, and what the metrics need."""
    for key, node in walk_datasets(cfg, evaluator):
        name, path = _type_name(node), node.get('ann_file')
        if name not in ('CocoMetric', 'CocoNSDMetric') or not path or not _is_local(path, node):
            continue
        content = read(path)
        _check_categories(f'the classes of {evaluator.replace("evaluator", "dataloader")}', classes, path, content)
        for annotation in content['annotations'] if name == 'CocoMetric' else ():
            if annotation['id'] == 0 or 'iscrowd' not in annotation:
                raise UserError(
                    f'{key}: CocoMetric takes annotation {annotation["id"]!r} of {path} for one that is never found, '
                    'or fails: it needs ids from 1, and iscrowd. Use mmnfn.CocoNSDMetric, or correct the file.'
                )


def _type_name(node: dict) -> str:
    """Name what a config node builds, without its library."""
    kind = node.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def _check_segmentation(cfg: Config, loaders: Tuple[str, ...]) -> None:
    """Check folders of images and label maps against classes and heads.

    Ten label maps of each dataset are read; :class:`~mmnfn.datasets.LoadLabelMap` checks the others when they are used.
    """
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    first = None
    for loader in LOADERS:  # the classes of all of them, whichever the run uses
        for key, node, kind in _datasets(cfg, loader, DATASETS, BaseSegDataset):
            name, own = f'{key}.metainfo.classes', kind.METAINFO.get('classes')
            classes = kind._load_metainfo(node.get('metainfo')).get('classes')
            _check_names(name, classes)
            first = first or (name, classes)
            check_labels(*first, name, classes)
            _check_heads(cfg, key, len(classes))
            if loader in loaders and not node.get('backend_args'):
                arguments = {key: value for key, value in node.items() if key != 'type'}
                dataset = kind(**{**arguments, 'pipeline': [], 'lazy_init': True})
                _check_label_maps(key, node, dataset, len(own or classes))


def _check_label_maps(key: str, node: dict, dataset: Any, num_classes: int) -> None:
    """Look for the files of a dataset, and read ten of its label maps."""
    for place, step in walk(node.get('pipeline'), f'{key}.pipeline'):
        if _type_name(step) == 'LoadLabelMap' and step['num_classes'] != num_classes:
            raise UserError(
                f'{place}.num_classes is {step["num_classes"]}, and the label maps of {key} have {num_classes} '
                'classes. Set it to that.'
            )
    samples = dataset.load_data_list()
    if not samples:
        raise UserError(
            f'{key}: no image is listed in {dataset.ann_file!r}, or ends in {dataset.img_suffix!r} in '
            f'{dataset.data_prefix["img_path"]}. Set img_suffix, ann_file or data_prefix.img_path.'
        )
    paths = [sample[name] for name in ('img_path', 'seg_map_path') for sample in samples if name in sample]
    missing = [path for path in paths if not osp.exists(path)]
    if missing:
        raise FileNotFoundError(
            f'{key}: {len(missing)} of {len(paths)} files are missing, {missing[0]} first. Check data_prefix, '
            f'img_suffix ({dataset.img_suffix}) and seg_map_suffix ({dataset.seg_map_suffix}).'
        )
    load_image, load_map, seen = LoadImageFromFile(), LoadLabelMap(num_classes), set()
    for sample in samples[:: -(-len(samples) // 10)]:
        if 'seg_map_path' not in sample:  # a test set without labels
            return
        seen.update(np.unique(load_map(load_image(dict(sample, label_map=None)))['gt_seg_map']).tolist())
    if not dataset.reduce_zero_label and seen <= {0, 255} and 255 in seen and num_classes > 1:
        raise UserError(
            f'{key}: the label maps hold 0 and 255 alone, {sample["seg_map_path"]} among them, and 255 is unlabelled. '
            'Write the numbers of the classes: 1 for 255 in a mask.'
        )
